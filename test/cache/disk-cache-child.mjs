/**
 * A process that uses a cache folder without pause: stores and reads blocks of few keys in few slots
 * and says so when a block is not what its key says. Ends when its standard input does.
 * Arguments: folder, size, seed.
 */
import { blockBytes, keyOf } from "./disk-cache-blocks.mjs";

const { DiskCacheStore } = await import("../../dist/cache/disk-cache-store.js");
const [folder, bytes, seed] = process.argv.slice(2);
const store = new DiskCacheStore(folder, Number(bytes), () => {});
const target = Buffer.alloc(524_288);
let state = Number(seed);
let hits = 0;
let done = false;
process.stdin.on("end", () => {
  done = true;
});
process.stdin.resume();
for (let i = 0; !done; i += 1) {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  const n = (state >>> 8) % 12;
  if ((state >>> 24) % 2 === 0) await store.write(keyOf(n), blockBytes(n));
  else if (await store.read(keyOf(n), target)) {
    hits += 1;
    if (!target.equals(blockBytes(n))) {
      process.stdout.write(`wrong ${n}\n`);
      process.exit(3);
    }
  }
  if (i === 0) process.stdout.write("going\n");
  if (i % 4 === 0) await new Promise((resolve) => setImmediate(resolve));
}
process.stdout.write(`hits ${hits}\n`);
process.exit(0);
