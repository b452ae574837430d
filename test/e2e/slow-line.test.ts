/**
 * The commands over a line of 4 Mbit/s. The time-out is short, so that it would strike where it counted the
 * whole of an operation or all that shares the line; how much of the line is used is measured in
 * scripts/bench/slow-lines.mjs.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Scratch } from "../support/scratch.js";
import { SlowLine } from "../support/slow-line.js";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** Some 17 s of the line; with 64 blocks at a time each would take that long. */
const DATA = randomBytes(8 * MIB);
const TIMEOUT = ["--io-timeout", "6s"];
const LIMIT = { limit: 150_000 };

let scratch: Scratch;
let line: SlowLine;
let snapshot = "";

beforeAll(async () => {
  scratch = new Scratch();
  line = await SlowLine.make(scratch, 4);
  const image = scratch.file("disk.img");
  const file = await open(image, "w");
  await file.write(DATA);
  await file.truncate(GIB);
  await file.close();
  const imported = await line.ebsmount(["import", image, ...TIMEOUT], LIMIT);
  expect(imported.stderr).toBe("");
  snapshot = imported.stdout.trim();
}, 200_000);
afterAll(() => scratch?.clean());

test("an export is whole", async () => {
  const copy = scratch.file("copy.img");
  const { status, stderr } = await line.ebsmount(["export", snapshot, copy, ...TIMEOUT], LIMIT);
  expect([status, stderr]).toEqual([0, ""]);
  expect(Buffer.compare(readFileSync(copy).subarray(0, DATA.length), DATA)).toBe(0);
}, 200_000);

test("a sequential reader gets everything, and what it writes is committed", async () => {
  const place = scratch.file("mnt");
  mkdirSync(place);
  scratch.undo(() => line.ebsmount(["unmount", "--lazy", place]));
  const mounted = await line.ebsmount(["mount", "--rw", snapshot, place, ...TIMEOUT], LIMIT);
  expect(mounted.status, mounted.stderr).toBe(0);
  const image = join(place, `${snapshot}.img`);
  const copy = scratch.file("read.img");
  const dd = ["dd", `if=${image}`, `of=${copy}`, "bs=1M", "count=8", "status=none"];
  const read = await line.run(dd, LIMIT);
  expect([read.status, read.stderr]).toEqual([0, ""]);
  expect(Buffer.compare(readFileSync(copy), DATA)).toBe(0);
  const file = await open(image, "r+");
  await file.write(randomBytes(6 * MIB), 0, 6 * MIB, 100 * MIB);
  await file.close();
  const unmounted = await line.ebsmount(["unmount", place], LIMIT);
  expect(unmounted.status, unmounted.stderr).toBe(0);
  expect(unmounted.stdout.trim()).toMatch(/^snap-/);
}, 300_000);

test("a bandwidth limit below the line's rate is kept", async () => {
  const image = scratch.file("small.img");
  const file = await open(image, "w");
  await file.write(DATA.subarray(0, 4 * MIB));
  await file.close();
  const start = performance.now();
  const limit = ["--bandwidth-limit", "256KiB/s"];
  const { status, stderr } = await line.ebsmount(["import", image, ...limit, ...TIMEOUT], LIMIT);
  expect([status, stderr]).toEqual([0, ""]);
  // Eight blocks, one each two seconds; the first goes at once.
  expect(performance.now() - start).toBeGreaterThan(13_000);
}, 200_000);
