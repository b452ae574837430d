import { expect, test } from "vitest";
import { Readahead } from "../../src/cache/readahead.js";

class Recorder {
  readonly asked: number[] = [];
  readonly cancelled: number[] = [];
  readonly reached = new Set<number>();
  readonly readahead: Readahead;

  constructor(window: number, blocks = 1_000_000) {
    this.readahead = new Readahead(
      {
        prefetch: (block) => void this.asked.push(block),
        cancel: (block) => void this.cancelled.push(block),
        wasReached: (block) => this.reached.has(block),
        prepare: () => {},
      },
      { blocks, window: () => window },
    );
  }
}

test("a sequential reader is asked ahead of, in order, once, within the window", () => {
  const r = new Recorder(32);
  for (let block = 100; block < 200; block += 1) {
    // Four reads of 128 KiB a block, as a loop device makes.
    for (let part = 0; part < 4; part += 1) r.readahead.onRead(block, block);
    expect(r.asked.at(-1) ?? block).toBeLessThanOrEqual(block + 32);
  }
  expect(r.asked).toEqual(Array.from({ length: r.asked.length }, (_, i) => 102 + i));
  expect(r.asked.at(-1)).toBe(199 + 32);
});

test("the window is earned: twice what was read in sequence", () => {
  const r = new Recorder(1_000);
  for (let block = 0; block < 20; block += 1) r.readahead.onRead(block, block);
  expect(r.asked.at(-1)).toBe(19 + 2 * 19);
});

test("random reads ask for nothing", () => {
  const r = new Recorder(64);
  let position = 1;
  for (let i = 0; i < 5_000; i += 1) {
    position = (position * 48_271) % 2_147_483_647;
    r.readahead.onRead(position % 999_983, position % 999_983);
  }
  expect(r.asked.length).toBeLessThan(100);
});

test("slightly out of order is still sequential", () => {
  const r = new Recorder(64);
  for (let block = 0; block < 60; block += 3) {
    for (const b of [block + 1, block, block + 2]) r.readahead.onRead(b, b);
  }
  expect(r.asked.at(-1)).toBe(59 + 64);
});

test("several streams share the window and do not disturb one another", () => {
  const r = new Recorder(64);
  for (let i = 0; i < 50; i += 1) {
    for (let stream = 0; stream < 8; stream += 1) {
      r.readahead.onRead(stream * 10_000 + i, stream * 10_000 + i);
    }
  }
  expect(r.cancelled).toEqual([]);
  for (let stream = 0; stream < 8; stream += 1) {
    const own = r.asked.filter((block) => Math.floor(block / 10_000) === stream);
    expect(Math.max(...own)).toBe(stream * 10_000 + 49 + 8);
  }
});

test("after a seek what was left is cancelled, and at most one window was asked in vain", () => {
  const r = new Recorder(32);
  for (let block = 0; block < 50; block += 1) r.readahead.onRead(block, block);
  const before = r.asked.length;
  for (let block = 5_000; block < 5_020; block += 1) r.readahead.onRead(block, block);
  expect(r.cancelled).toEqual(Array.from({ length: 32 }, (_, i) => 50 + i));
  expect(r.asked.slice(before).every((block) => block >= 5_000)).toBe(true);
});

test("reads answered elsewhere move the stream on through the marks", () => {
  const r = new Recorder(16);
  for (let block = 0; block < 20; block += 1) r.readahead.onRead(block, block);
  const end = r.asked.at(-1) as number;
  for (let block = 20; block < 30; block += 1) r.reached.add(block);
  r.readahead.onReached();
  expect(r.asked.at(-1)).toBe(end + 10);
});

test("nothing is asked for past the end of the device, or with a window of 0", () => {
  const r = new Recorder(64, 10);
  for (let block = 0; block < 10; block += 1) r.readahead.onRead(block, block);
  expect(r.asked).toEqual([2, 3, 4, 5, 6, 7, 8, 9]);
  const off = new Recorder(0);
  for (let block = 0; block < 10; block += 1) off.readahead.onRead(block, block);
  expect(off.asked).toEqual([]);
});
