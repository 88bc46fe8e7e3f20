// Copy buttons, the confirmation that leaves the keys on the screen, and security keys. All else works without.
"use strict";

const show = (element) => { if (element) element.hidden = false; };

function tell(form, text) {
  const place = form.querySelector("[data-problem]");
  place.textContent = text;
  show(place);
}

for (const button of document.querySelectorAll("[data-copy]")) {
  show(button);
  const before = button.textContent;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = button.dataset.copied;
    setTimeout(() => { button.textContent = before; }, 2000);
  });
}

for (const button of document.querySelectorAll("[data-print]")) {
  show(button);
  button.addEventListener("click", () => window.print());
}

for (const address of document.querySelectorAll("input.address")) {
  address.addEventListener("focus", () => address.select());
}

// --- menus: one at a time, and Escape closes it ---

const menus = document.querySelectorAll("details.menu");
for (const menu of menus) {
  menu.addEventListener("toggle", () => {
    if (menu.open) for (const other of menus) if (other !== menu) other.open = false;
  });
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && menu.open) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });
}

// --- the set-up window ---

const confirmation = document.querySelector("form[data-confirm]");
const closing = document.querySelector("form[data-close]");
let leaving = false;

const post = (form) => fetch(form.action, {
  method: "POST",
  headers: { Accept: "application/json" },
  body: new URLSearchParams(new FormData(form)),
});

if (confirmation) {
  confirmation.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = confirmation.querySelector("button");
    const code = confirmation.querySelector("[name=code]");
    button.disabled = true;
    try {
      const answer = await (await post(confirmation)).json();
      if (answer.next) {
        leaving = true;
        location.assign(answer.next);
        return;
      }
      tell(confirmation, answer.problem || answer.over);
      if (answer.over) {
        // The keys are of no use any more.
        leaving = true;
        for (const gone of document.querySelectorAll(".keys")) gone.remove();
        return;
      }
      code.value = "";
      code.focus();
    } catch {
      // Not our answer: let the browser show what there is.
      leaving = true;
      confirmation.submit();
      return;
    }
    button.disabled = false;
  });
  closing.addEventListener("submit", () => { leaving = true; });
  // Whoever leaves the window without a word has closed it.
  window.addEventListener("pagehide", () => {
    if (!leaving) navigator.sendBeacon(closing.action, new URLSearchParams(new FormData(closing)));
  });
}

// --- security keys (WebAuthn) ---

const bytes = (text) => Uint8Array.from(
  atob(text.replace(/-/g, "+").replace(/_/g, "/")), (character) => character.charCodeAt(0));
const base64url = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const withBytes = (list) => (list || []).map((each) => ({ ...each, id: bytes(each.id) }));

function answerOf(credential) {
  const response = { clientDataJSON: base64url(credential.response.clientDataJSON) };
  for (const name of ["attestationObject", "authenticatorData", "signature", "userHandle"]) {
    if (credential.response[name]) response[name] = base64url(credential.response[name]);
  }
  if (credential.response.getTransports) response.transports = credential.response.getTransports();
  return JSON.stringify({
    id: credential.id,
    rawId: base64url(credential.rawId),
    type: credential.type,
    response,
    clientExtensionResults: credential.getClientExtensionResults(),
    ...(credential.authenticatorAttachment && { authenticatorAttachment: credential.authenticatorAttachment }),
  });
}

const ceremonies = {
  get: (options) => navigator.credentials.get({ publicKey: {
    ...options, challenge: bytes(options.challenge), allowCredentials: withBytes(options.allowCredentials) } }),
  create: (options) => navigator.credentials.create({ publicKey: {
    ...options,
    challenge: bytes(options.challenge),
    user: { ...options.user, id: bytes(options.user.id) },
    excludeCredentials: withBytes(options.excludeCredentials) } }),
};

for (const form of document.querySelectorAll("form[data-key]")) {
  const button = form.querySelector("[data-use-key]");
  show(button);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const credential = await ceremonies[form.dataset.key](JSON.parse(form.dataset.options));
      form.elements.credential.value = answerOf(credential);
      form.submit();
    } catch {
      tell(form, form.dataset.failed);
      button.disabled = false;
    }
  });
  button.focus();
}
