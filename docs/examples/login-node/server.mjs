// A login page with password and code. See README.md.
import { randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { connect } from "node:net";

const SOCKET = "/run/otpbridge/verify";
const LASTS = 30 * 60_000;
const sessions = new Map();

/** Ask the daemon; null where it cannot be asked, does not answer or cannot judge. */
const check = (user, password, code, rhost) => new Promise((done) => {
  const daemon = connect(SOCKET).setTimeout(10_000, () => daemon.destroy());
  const context = { service: "login-node", rhost };
  const parameters = { user, client: "acme", stack: "portal", responses: [password, code], context };
  daemon.write(JSON.stringify({ method: "org.otpbridge.Verify.Check", parameters }) + "\0");
  let text = "";
  daemon.setEncoding("utf8").on("data", (piece) => { if ((text += piece).endsWith("\0")) daemon.end(); });
  daemon.on("error", () => {}).on("close", () => {
    try {
      const reply = JSON.parse(text.slice(0, -1));
      // A name that no user can have is no fault of the daemon.
      const nobody = reply.error === "org.varlink.service.InvalidParameter";
      done(nobody ? { verdict: "auth_err" } : reply.error ? null : reply.parameters);
    } catch { done(null); }
  });
});

const escaped = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const html = (text) => text.replace(/[&<>"']/g, (letter) => escaped[letter]);

const form = (user = "", said = "") => `${said && `<p role="alert">${html(said)}</p>`}<form method="post">
<p><label>User <input name="user" value="${html(user)}" autocomplete="username"></label>
<p><label>Password <input name="password" type="password" autocomplete="current-password"></label>
<p><label>Code <input name="code" autocomplete="one-time-code"></label>
<p><button>Log in</button></form>`;

const welcome = (session) => `<h1>Welcome, ${html(session.user)}</h1>
${session.notices.splice(0).map((notice) => `<p>${html(notice)}</p>`).join("")}
<form method="post"><button name="logout" value="1">Log out</button></form>`;

async function posted(request) {
  let body = "";
  for await (const piece of request.setEncoding("utf8")) if ((body += piece).length > 10_000) return null;
  return new URLSearchParams(body);
}

async function answer(request, send) {
  const id = /(?:^|; )__Host-session=([\w-]+)/.exec(request.headers.cookie ?? "")?.[1];
  const session = sessions.get(id);
  const known = session && session.ends > Date.now() ? session : null;
  if (request.method !== "POST") return send(200, known ? welcome(known) : form());
  if (!["same-origin", "none"].includes(request.headers["sec-fetch-site"] ?? "same-origin")) {
    return send(403, '<p role="alert">Sent from another site.</p>');
  }
  const fields = await posted(request);
  if (!fields) return send(413, '<p role="alert">That is too long.</p>');
  let [name, age] = ["", "; Max-Age=0"];
  if (!fields.has("logout")) {
    const [user, password, code] = ["user", "password", "code"].map((name) => fields.get(name) ?? "");
    const reply = await check(user, password, code, request.socket.remoteAddress);
    if (!reply) return send(503, form(user, "Logging in is not possible now. Try again later."));
    if (reply.verdict === "maxtries") {
      return send(429, form(user, `Too many attempts. Try again in ${reply.retryAfter} s.`));
    }
    if (reply.verdict !== "success") return send(401, form(user, "That did not work. Wait for the next code."));
    for (const [old, { ends }] of sessions) if (ends <= Date.now()) sessions.delete(old);
    // A new name: a session that was there before the login does not become the person's.
    [name, age] = [randomBytes(32).toString("base64url"), ""];
    const notices = reply.notices.map((notice) => notice.text);
    sessions.set(name, { user, notices, ends: Date.now() + LASTS });
  }
  sessions.delete(id);
  const set = `__Host-session=${name}; Path=/; Secure; HttpOnly; SameSite=Strict${age}`;
  return send(303, "", { Location: "/", "Set-Cookie": set });
}

const server = createServer((request, response) => {
  const send = (status, body, more = {}) => response.writeHead(status, {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy":
      "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ...more,
  }).end(`<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Example</title>\n${body}\n`);
  answer(request, send).catch(() => response.destroy());
});
server.listen(Number(process.argv[2] ?? 8080), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/`);
});
