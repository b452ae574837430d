/** Streams of bytes for tests: repeatable bytes, and a reader that gets them in pieces. */
import type { ByteReader } from "../../src/snapshot/stream-source.js";
import { randomSource } from "./random.js";

/** Bytes in which no two places look alike. */
export function noise(length: number, seed = 1): Buffer {
  const random = randomSource(seed);
  const bytes = Buffer.alloc(length);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, length >> 2);
  for (let i = 0; i < words.length; i += 1) words[i] = random() * 2 ** 32;
  return bytes;
}

/** Gives the bytes in pieces of these sizes at most, then as much at a time as is asked for. */
export function pieces(bytes: Uint8Array, sizes: readonly number[]): ByteReader {
  let at = 0;
  let turn = 0;
  let reading = false;
  return {
    async read(target) {
      if (reading) throw new Error("two reads at a time");
      reading = true;
      await new Promise((resolve) => setImmediate(resolve));
      reading = false;
      const size = sizes[turn] ?? target.length;
      turn += 1;
      const piece = bytes.subarray(at, at + Math.min(size, target.length));
      target.set(piece);
      at += piece.length;
      return piece.length;
    },
    close() {},
  };
}
