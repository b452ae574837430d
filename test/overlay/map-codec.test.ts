/** The dirty map through the journal's words and back, also those of older sessions and of damage. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Failure } from "../../src/common/failure.js";
import { SECTORS_PER_BLOCK } from "../../src/common/sizes.js";
import { DirtyMap } from "../../src/overlay/dirty-map.js";
import { applyRecord, ChangeSet, encodeAll, encodeChanges } from "../../src/overlay/map-codec.js";
import { CLEAN, DATA, HOLE, PARTIAL, ZERO } from "../../src/overlay/sector-states.js";

const BLOCKS = 2100;
const SECTORS = BLOCKS * SECTORS_PER_BLOCK;

const change = fc
  .record({
    state: fc.constantFrom(DATA, ZERO, HOLE, PARTIAL),
    start: fc.oneof(
      fc.nat(SECTORS - 1),
      fc.nat(3000),
      fc.nat(2).map((group) => group * 1024 * SECTORS_PER_BLOCK),
    ),
    length: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.nat(3000), fc.constant(SECTORS)),
  })
  .map((one) => ({ ...one, end: Math.min(SECTORS, one.start + one.length) }));

/** Many changes of single sectors, so that states as bits are shorter than runs. */
const scattered = fc.array(
  fc.record({
    state: fc.constantFrom(DATA, ZERO, HOLE, PARTIAL),
    start: fc.nat(200),
  }),
  { minLength: 60, maxLength: 200 },
);

function put(map: DirtyMap, state: number, start: number, end: number): void {
  if (state === PARTIAL) {
    if (map.stateAt(start) === CLEAN) map.addBytes(start, 3, 9);
  } else {
    map.set(start, end, state as typeof DATA);
  }
}

function sameStates(a: DirtyMap, b: DirtyMap): void {
  for (let at = 0; at < SECTORS; ) {
    const end = a.runEnd(at, SECTORS);
    expect(b.stateAt(at)).toBe(a.stateAt(at));
    expect(b.runEnd(at, SECTORS)).toBe(end);
    if (a.stateAt(at) === PARTIAL) expect(b.maskOf(at)).toEqual(a.maskOf(at));
    at = end;
  }
  expect(b.dataSectors).toBe(a.dataSectors);
}

describe("the journal's records", () => {
  test("give back the same map, whole or by changes", () => {
    fc.assert(
      fc.property(fc.array(change, { maxLength: 12 }), scattered, (changes, more) => {
        const map = new DirtyMap();
        const all = [...changes, ...more.map((one) => ({ ...one, end: one.start + 1 }))];
        const byChanges = new DirtyMap();
        for (const { state, start, end } of all) {
          put(map, state, start, end);
          const set = new ChangeSet();
          const last = state === PARTIAL ? start + 1 : end;
          set.add(Math.floor(start / SECTORS_PER_BLOCK), Math.ceil(last / SECTORS_PER_BLOCK));
          for (const record of encodeChanges(map, set).records) {
            applyRecord(byChanges, record, SECTORS);
          }
        }
        sameStates(map, byChanges);
        const whole = new DirtyMap();
        for (const record of encodeAll(map).records) applyRecord(whole, record, SECTORS);
        sameStates(map, whole);
        for (let block = 0; block < BLOCKS; block += 1) {
          expect(whole.isWritten(block)).toBe(map.isWritten(block));
        }
      }),
      { numRuns: 60 },
    );
  });

  test("are refused or taken where they are anything, and never overrun the volume", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 700 }),
        fc.integer({ min: 0, max: 5 }),
        (bytes, kind) => {
          const payload = Buffer.from(bytes);
          if (payload.length > 0) payload[0] = kind;
          const map = new DirtyMap();
          try {
            applyRecord(map, payload, SECTORS);
          } catch (error) {
            expect(error).toBeInstanceOf(Failure);
          }
          for (const { end } of map.runs()) expect(end).toBeLessThanOrEqual(BLOCKS);
        },
      ),
    );
  });
});

describe("a session of schema 1", () => {
  /** kind 1, state 1, padding 6, start 8, count 8. */
  function entry(kind: number, state: number, start: number, count: number): Buffer {
    const bytes = Buffer.alloc(24);
    bytes[0] = kind;
    bytes[1] = state;
    bytes.writeDoubleLE(start, 8);
    bytes.writeDoubleLE(count, 16);
    return bytes;
  }

  test("has its discards read as written zeros, for they may have been", () => {
    const map = new DirtyMap();
    applyRecord(map, entry(1, 2, 0, SECTORS_PER_BLOCK), SECTORS);
    expect(map.stateAt(0)).toBe(ZERO);
    expect(map.isWritten(0)).toBe(true);
  });

  test("has its states of two bits a sector read", () => {
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom(CLEAN, DATA, ZERO), { minLength: 1024, maxLength: 1024 }),
        (states) => {
          const narrow = Buffer.alloc(256);
          states.forEach((state, i) => {
            narrow[i >> 2]! |= state << ((i & 3) * 2);
          });
          const map = new DirtyMap();
          applyRecord(map, Buffer.concat([entry(2, 0, 5, 1), narrow]), SECTORS);
          const found = states.map((_, i) => map.stateAt(5 * SECTORS_PER_BLOCK + i));
          expect(found).toEqual(states);
        },
      ),
      { numRuns: 20 },
    );
  });
});
