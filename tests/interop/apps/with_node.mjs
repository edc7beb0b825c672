// shapes.py's paths in Node's own server, as far as its differences matter: framing, interim answers, trailers, keep-alive.
// node with_node.mjs PORT KEEP_ALIVE_MS: prints its port on 127.0.0.1 (0: any free one).
// Node keeps idle connections for a second longer than it says; under a second they are ended here, at the time.
import http from "node:http";
import crypto from "node:crypto";
import zlib from "node:zlib";

const SMALL = Buffer.from("hello, world\n");
const LARGE = Buffer.alloc(5 << 20, Buffer.from(Array.from({ length: 256 }, (_, i) => i)));
const PIECES = Array.from({ length: 20 }, (_, i) => `piece ${i}\n`.repeat(i + 1));
const TAG = '"one-5f3"';
const LINK = "</style.css>; rel=preload; as=style";
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function handle(request, response) {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces);
  const path = request.url.split("?")[0];
  const [, head, last] = path.split("/");
  if (path === "/small") {
    response.setHeader("ETag", TAG);
    response.setHeader("Set-Cookie", ["a=1; Path=/", "b=two words; Path=/; HttpOnly"]);
    if (request.headers["if-none-match"] === TAG) return response.writeHead(304).end();
    return response.writeHead(200, { "Content-Type": "text/plain", "Content-Length": SMALL.length }).end(SMALL);
  }
  if (path === "/large") {
    response.setHeader("Accept-Ranges", "bytes");
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    if (!range) return response.writeHead(200, { "Content-Length": LARGE.length }).end(LARGE);
    const [start, end] = [Number(range[1]), Number(range[2])];
    return response.writeHead(206, { "Content-Range": `bytes ${start}-${end}/${LARGE.length}` }).end(LARGE.subarray(start, end + 1));
  }
  if (path === "/echo") {
    const headers = [];
    for (let i = 0; i < request.rawHeaders.length; i += 2) headers.push([request.rawHeaders[i].toLowerCase(), request.rawHeaders[i + 1]]);
    const sum = crypto.createHash("sha256").update(body).digest("hex");
    return response.end(JSON.stringify({ method: request.method, target: request.url, headers, body_bytes: body.length, body_sha256: sum }));
  }
  if (path === "/chunked" || path === "/drip") {
    response.writeHead(200, { "Content-Type": "text/plain", "Trailer": "X-Sum" });
    for (const piece of PIECES) {
      response.write(piece);
      if (path === "/drip") await sleep(10);
    }
    response.addTrailers({ "X-Sum": "20" });
    return response.end();
  }
  if (path === "/hints") {
    response.writeEarlyHints({ link: LINK });
    response.writeProcessing();
    return response.end(SMALL);
  }
  if (path === "/gzip") {
    response.setHeader("Content-Encoding", "gzip");
    return response.end(zlib.gzipSync(SMALL));
  }
  if (path === "/close") return response.writeHead(200, { Connection: "close" }).end(SMALL);
  if (head === "redirect") return response.writeHead(Number(last), { Location: "/echo?redirected" }).end("elsewhere\n");
  if (head === "redirect-absolute") return response.writeHead(Number(last), { Location: `http://${request.headers.host}/small` }).end();
  if (head === "status") return response.writeHead(Number(last)).end(last === "204" ? undefined : "as asked\n");
  if (head === "head") return response.writeHead(200, { "X-Long": "v".repeat(Number(last)) }).end(SMALL);
  if (head === "fields") {
    for (let i = 0; i < Number(last); i++) response.setHeader(`X-Field-${i}`, "v".repeat(60));
    return response.end(SMALL);
  }
  response.writeHead(404).end("nothing here\n");
}

const keepAliveMs = Number(process.argv[3] ?? 5000);
const server = http.createServer((request, response) => {
  const { socket } = request;
  if (keepAliveMs < 1000) response.on("finish", () => setImmediate(() => socket.setTimeout(keepAliveMs)));
  handle(request, response).catch(() => response.destroy());
});
server.keepAliveTimeout = Math.max(keepAliveMs, 1000);
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", 1024, () => console.log(server.address().port));
process.on("SIGTERM", () => {
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
