/** What a file system says was written: what the kernel returns, parsed, and real files. */
import { execFileSync } from "node:child_process";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Fiemap, openFiemap, writtenRanges } from "../../src/common/extents.js";
import { MIB } from "../../src/common/sizes.js";
import { Scratch } from "../support/scratch.js";

const LAST = 1;
const UNKNOWN = 2;
const DELALLOC = 4;
const UNWRITTEN = 0x800;

interface FakeExtent {
  readonly start: number;
  readonly length: number;
  readonly flags: number;
}

/** A kernel that knows these extents; `failAfter` calls it refuses. */
function fakeKernel(extents: readonly FakeExtent[], failAfter = Number.POSITIVE_INFINITY) {
  let calls = 0;
  const fiemap: Fiemap = (request) => {
    calls += 1;
    if (calls > failAfter) return false;
    const start = Number(request.readBigUInt64LE(0));
    const end = start + Number(request.readBigUInt64LE(8));
    const room = request.readUInt32LE(24);
    expect(request.length).toBe(32 + room * 56);
    const found = extents.filter((e) => e.start < end && e.start + e.length > start);
    const given = found.slice(0, room);
    request.writeUInt32LE(given.length, 20);
    given.forEach((extent, i) => {
      request.writeBigUInt64LE(BigInt(extent.start), 32 + i * 56);
      request.writeBigUInt64LE(BigInt(extent.length), 32 + i * 56 + 16);
      request.writeUInt32LE(extent.flags, 32 + i * 56 + 40);
    });
    return true;
  };
  return { fiemap, calls: () => calls };
}

function covered(ranges: Iterable<[number, number]>, size: number): Uint8Array {
  const map = new Uint8Array(size);
  let before = 0;
  for (const [start, end] of ranges) {
    expect(start).toBeGreaterThanOrEqual(before);
    expect(end).toBeGreaterThan(start);
    expect(end).toBeLessThanOrEqual(size);
    map.fill(1, start, end);
    before = end;
  }
  return map;
}

const SIZE = 400;
const someExtents = fc
  .array(
    fc.record({
      gap: fc.nat(20),
      length: fc.integer({ min: 1, max: 60 }),
      flags: fc.constantFrom(0, UNKNOWN, UNKNOWN | DELALLOC, UNWRITTEN, 0x2000),
    }),
    { maxLength: 20 },
  )
  .map((parts) => {
    let at = 0;
    return parts.map(({ gap, length, flags }) => {
      const extent = { start: at + gap, length, flags };
      at += gap + length;
      return extent;
    });
  });

describe("writtenRanges", () => {
  test("has every extent of any kind, in batches of any size, and nothing else", () => {
    fc.assert(
      fc.property(
        someExtents,
        fc.integer({ min: 1, max: 7 }),
        fc.boolean(),
        (extents, room, last) => {
          const list = extents.map((extent, i) => ({
            ...extent,
            flags: extent.flags | (last && i === extents.length - 1 ? LAST : 0),
          }));
          const expected = new Uint8Array(SIZE);
          for (const { start, length } of list) expected.fill(1, start, start + length);
          const kernel = fakeKernel(list);
          expect(covered(writtenRanges(kernel.fiemap, SIZE, room), SIZE)).toEqual(expected);
          expect(kernel.calls()).toBeLessThanOrEqual(list.length + 2);
        },
      ),
    );
  });

  test("takes all that follows for written where a call fails", () => {
    fc.assert(
      fc.property(someExtents, fc.nat(3), (extents, failAfter) => {
        const kernel = fakeKernel(extents, failAfter);
        const found = covered(writtenRanges(kernel.fiemap, SIZE, 2), SIZE);
        for (const { start, length } of extents) {
          const inside = found.subarray(start, Math.min(SIZE, start + length));
          expect(inside.every((byte) => byte === 1)).toBe(true);
        }
      }),
    );
  });

  test("ends on extents that lead nowhere, and calls the rest written", () => {
    const fiemap: Fiemap = (request) => {
      request.writeUInt32LE(1, 20);
      return true;
    };
    expect([...writtenRanges(fiemap, SIZE, 1)]).toEqual([[0, SIZE]]);
  });
});

describe("a real file", () => {
  let scratch: Scratch;
  beforeEach(() => {
    scratch = new Scratch();
  });
  afterEach(() => scratch.clean());

  test("tells written and zeroed parts from holes, also what is not on the disk yet", () => {
    const path = scratch.file("image");
    const fd = openSync(path, "w+");
    try {
      ftruncateSync(fd, 64 * MIB);
      writeSync(fd, Buffer.alloc(4096, 1), 0, 4096, MIB);
      writeSync(fd, Buffer.alloc(4096), 0, 4096, 9 * MIB);
      execFileSync("fallocate", ["-z", "-o", "20MiB", "-l", "2MiB", path]);
      execFileSync("fallocate", ["-o", "40MiB", "-l", "1MiB", path]);
      execFileSync("fallocate", ["-p", "-o", "21MiB", "-l", "512KiB", path]);
      const fiemap = openFiemap(fd);
      expect(fiemap).toBeDefined();
      const written = [...writtenRanges(fiemap as Fiemap, 64 * MIB, 2)];
      const touches = (at: number) => written.some(([start, end]) => start <= at && at < end);
      for (const at of [MIB, 9 * MIB, 20 * MIB, 22 * MIB - 1, 40 * MIB]) {
        expect(touches(at)).toBe(true);
      }
      for (const at of [0, 2 * MIB, 10 * MIB, 21 * MIB + 1000, 22 * MIB, 63 * MIB]) {
        expect(touches(at)).toBe(false);
      }
    } finally {
      closeSync(fd);
    }
  });

  test("on a file system that does not tell has no FIEMAP", () => {
    const fd = openSync("/proc/self/mountinfo", "r");
    expect(openFiemap(fd)).toBeUndefined();
    closeSync(fd);
  });
});
