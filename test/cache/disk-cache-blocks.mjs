/** Blocks for tests of the disk cache, in this process and in others: each is known by its number. */
import { createHash } from "node:crypto";

const made = new Map();

export function keyOf(n) {
  return createHash("sha256").update(`test ${n}`).digest();
}

export function blockBytes(n) {
  let block = made.get(n);
  if (block === undefined) {
    block = Buffer.alloc(524_288);
    for (let at = 0; at < block.length; at += 8) {
      block.writeUInt32LE(n + 1, at);
      block.writeUInt32LE(at, at + 4);
    }
    made.set(n, block);
  }
  return block;
}
