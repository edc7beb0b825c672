// Node's http2 over one session: http2.mjs URL AUTHORITY COUNT. Says as JSON what came: COUNT answers, an upload,
// whether a ping came back, and the settings that the gateway announced.
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const [url, authority, count] = process.argv.slice(2);
const session = connect(url, authority ? { ca: readFileSync(authority) } : {});
const told = once(session, "remoteSettings");
await once(session, "connect");

async function ask(headers, body = null) {
  const stream = session.request(headers, { endStream: body === null });
  if (body !== null) stream.end(body);
  const [answer] = await once(stream, "response");
  const digest = createHash("sha256");
  let bytes = 0;
  for await (const piece of stream) {
    digest.update(piece);
    bytes += piece.length;
  }
  return { status: answer[":status"], bytes, sha256: digest.digest("hex") };
}

const paths = Array.from({ length: Number(count) }, (_, i) => (i % 10 ? "/small" : "/large"));
const answers = await Promise.all(paths.map((path) => ask({ ":path": path })));
const upload = await ask({ ":path": "/echo", ":method": "POST" }, Buffer.alloc(3_000_000, "node"));
const [ping] = await new Promise((done) => session.ping((error, ms) => done([error === null && ms >= 0])));
const [settings] = await told;
const found = { answers, upload, ping, settings, protocol: session.alpnProtocol };
session.close();
await once(session, "close");
process.stdout.write(JSON.stringify(found));
