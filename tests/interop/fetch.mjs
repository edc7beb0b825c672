// Node's fetch. With an address: its body to stdout as it comes. Without: reads calls as JSON from stdin, says what came.
import { readFileSync, writeSync } from "node:fs";
import { Readable } from "node:stream";

const from64 = (text) => Buffer.from(text, "base64");

function* pieces(body) {
  for (let at = 0; at < body.length; at += 16384) yield body.subarray(at, at + 16384);
}

async function one(call) {
  const how = { method: call.method, headers: call.headers, redirect: call.follow ? "follow" : "manual" };
  if (Object.keys(call.files).length) {
    how.body = new FormData();
    for (const [name, [file, data]] of Object.entries(call.files)) how.body.append(name, new Blob([from64(data)]), file);
  } else if (call.body !== null && call.chunked) {
    how.body = Readable.toWeb(Readable.from(pieces(from64(call.body)))); // Node 18 has no ReadableStream.from
    how.duplex = "half";
  } else if (call.body !== null) {
    how.body = new Blob([from64(call.body)]); // a buffer cannot be sent again after 307: it was given away
  }
  const answer = await fetch(call.url, how);
  const body = Buffer.from(await answer.arrayBuffer());
  return { status: answer.status, headers: [...answer.headers], body: body.toString("base64"), url: answer.url };
}

if (process.argv[2]) {
  for await (const piece of (await fetch(process.argv[2])).body) writeSync(1, piece);
} else {
  const found = [];
  for (const call of JSON.parse(readFileSync(0))) found.push(await one(call));
  process.stdout.write(JSON.stringify(found));
}
