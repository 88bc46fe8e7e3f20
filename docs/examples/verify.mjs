// node verify.mjs USER, the code on standard input
import { connect } from "node:net";
import { readFileSync } from "node:fs";
const secondFactor = (user, code) => new Promise((done) => {
  const daemon = connect("/run/otpbridge/verify").setTimeout(10_000, () => daemon.destroy());
  const parameters = { user, client: "acme", responses: [code] };
  daemon.write(JSON.stringify({ method: "org.otpbridge.Verify.Check", parameters }) + "\0");
  let reply = "";
  daemon.setEncoding("utf8").on("data", (text) => { if ((reply += text).endsWith("\0")) daemon.end(); });
  daemon.on("error", () => {}).on("close", () => {
    try { done(JSON.parse(reply.slice(0, -1)).parameters.verdict === "success"); } catch { done(false); } });
});
process.exit((await secondFactor(process.argv[2], readFileSync(0, "utf8").trim())) ? 0 : 1);
