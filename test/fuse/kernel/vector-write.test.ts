/** What is written by address is what the views hold, wherever they lie, and stays so when memory is moved about. */
import { closeSync, openSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { afterEach, beforeEach, expect, it } from "vitest";
import { openVectorWrite, type VectorWrite } from "../../../src/fuse/kernel/vector-write.js";
import { Scratch } from "../../support/scratch.js";

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => scratch.clean());

it("writes header and parts, whatever buffers they are of", () => {
  const write = openVectorWrite() as VectorWrite;
  const shared = new SharedArrayBuffer(1 << 16);
  new Uint8Array(shared).forEach((_, i, all) => {
    all[i] = i * 7;
  });
  const header = Buffer.alloc(70_000, "header").subarray(0, 16);
  const piece = fc.record({
    from: fc.nat(60_000),
    length: fc.integer({ min: 1, max: 5_000 }),
    kind: fc.constantFrom("shared", "own", "tiny"),
  });
  const viewOf = ({ from, length, kind }: { from: number; length: number; kind: string }) => {
    if (kind === "shared") return new Uint8Array(shared, from, length);
    // In the heap of V8 until its buffer is asked for.
    if (kind === "tiny") return new Uint8Array((length % 60) + 1).fill(from);
    return Buffer.alloc(length, String(from));
  };
  fc.assert(
    fc.property(fc.array(piece, { minLength: 1, maxLength: 8 }), (pieces) => {
      const path = scratch.file("out");
      const file = openSync(path, "w");
      try {
        const parts = pieces.map(viewOf);
        // Garbage, so that a collection may move what can be moved.
        for (let i = 0; i < 200; i += 1) new Array(1_000).fill(i);
        const whole = Buffer.concat([header, ...parts]);
        expect(write(file, header, parts, whole.length)).toBe(true);
        expect(readFileSync(path).equals(whole)).toBe(true);
      } finally {
        closeSync(file);
      }
    }),
  );
});

it("says so where the call fails, or has too many parts", () => {
  const write = openVectorWrite() as VectorWrite;
  const byte = Buffer.alloc(4096);
  expect(write(-1, byte, [byte], 8192)).toBe(false);
  expect(write(1, byte, new Array(17).fill(byte), 18 * 4096)).toBe(false);
});
