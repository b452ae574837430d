/**
 * Fetches blocks in several threads from a service that never responds, and ends in the way that it is told:
 * `exit`, `throw`, or `return` (closing the api first). Prints "waiting" once all requests are under way.
 *
 * usage: exit-child.mjs URL HOW
 */
import { createEbsApi } from "../../dist/ebs/create.js";

const [url, how] = process.argv.slice(2);
const BLOCK_SIZE = 512 * 1024;
const api = createEbsApi({
  endpointUrl: url,
  region: "us-east-1",
  threads: 2,
  ioTimeoutMs: 60_000,
});
const fetch = (index) => {
  const target = new Uint8Array(new SharedArrayBuffer(BLOCK_SIZE));
  return api.getSnapshotBlock("snap-1", index, "AAAA", target).catch(() => {});
};
// The first come back, and have the threads started; the others hang.
await Promise.all(Array.from({ length: 8 }, (_, index) => fetch(index)));
while (api.readyThreads < 2) await new Promise((resolve) => setTimeout(resolve, 5));
for (let index = 100; index < 140; index += 1) void fetch(index);
process.on("message", async () => {
  if (how === "exit") process.exit(7);
  if (how === "throw") {
    setImmediate(() => {
      throw new Error("on purpose");
    });
    return;
  }
  await api.close();
  process.disconnect();
});
