/**
 * The store against its one promise: a block that it gives is the block that was put under that key.
 * Whatever happens to the files (any byte, any length, other processes, kill -9), it may forget; and
 * as long as nothing happens to them it must remember, up to its limit and not beyond.
 */
import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { DiskCacheStore } from "../../src/cache/disk-cache-store.js";
import { BLOCK_SIZE, MIB } from "../../src/common/sizes.js";
import { blockBytes, keyOf } from "./disk-cache-blocks.mjs";

/** A set of 64 slots, and one of four. */
const LARGE = 33 * MIB;
const TINY = 4 * (BLOCK_SIZE + 128);
const target = Buffer.alloc(BLOCK_SIZE);
let folder: string;
let troubles: string[];
const undo: (() => unknown)[] = [];

function open(bytes = LARGE): DiskCacheStore {
  return new DiskCacheStore(folder, bytes, (kind) => troubles.push(kind));
}

function fileOf(kind: "index" | "blocks"): string {
  return join(folder, readdirSync(folder).find((name) => name.includes(kind)) as string);
}

/** True where the block is there; fails where it is there and wrong. */
async function holdsRight(store: DiskCacheStore, n: number): Promise<boolean> {
  const found = await store.read(keyOf(n), target);
  if (found && !target.equals(blockBytes(n))) throw new Error(`block ${n} is wrong`);
  return found;
}

function alter(file: string, at: number, change: (byte: number) => number): boolean {
  const fd = openSync(file, "r+");
  try {
    const byte = Buffer.alloc(1);
    if (readSync(fd, byte, 0, 1, at) !== 1) return false;
    byte[0] = change(byte[0] as number) & 0xff;
    writeSync(fd, byte, 0, 1, at);
    return true;
  } finally {
    closeSync(fd);
  }
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "ebsmount-test-"));
  troubles = [];
});
afterEach(async () => {
  vi.useRealTimers();
  for (const action of undo.splice(0).reverse()) await action();
  rmSync(folder, { recursive: true, force: true });
});

describe("while nothing happens to the files", () => {
  it("remembers as many blocks as a set has slots, over openings", async () => {
    const store = open();
    for (let n = 0; n < 64; n += 1) await store.write(keyOf(n), blockBytes(n));
    await store.close();
    const again = open();
    undo.push(() => again.close());
    for (let n = 0; n < 64; n += 1) expect(await holdsRight(again, n)).toBe(true);
    expect(await holdsRight(again, 64)).toBe(false);
    expect(troubles).toEqual([]);
  });

  it("stays under its limit, and forgets what was used longest ago", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: 1_000_000 });
    const store = open(TINY);
    undo.push(() => store.close());
    for (let n = 0; n < 4; n += 1) {
      vi.advanceTimersByTime(100_000);
      await store.write(keyOf(n), blockBytes(n));
    }
    vi.advanceTimersByTime(100_000);
    expect(await holdsRight(store, 0)).toBe(true);
    for (const n of [4, 5]) {
      vi.advanceTimersByTime(100_000);
      await store.write(keyOf(n), blockBytes(n));
    }
    const held = [];
    for (let n = 0; n < 6; n += 1) if (await holdsRight(store, n)) held.push(n);
    expect(held).toEqual([0, 3, 4, 5]);
    const size = statSync(fileOf("index")).size + statSync(fileOf("blocks")).size;
    expect(size).toBeLessThanOrEqual(TINY);
  });

  it("starts anew with another limit, and leaves other files alone", async () => {
    writeFileSync(join(folder, "mine"), "x");
    const old = open(TINY);
    undo.push(() => old.close());
    await old.write(keyOf(1), blockBytes(1));
    const now = open(LARGE);
    undo.push(() => now.close());
    expect(readdirSync(folder).sort()).toEqual([
      "ebsmount-blocks-v1-64",
      "ebsmount-index-v1-64",
      "mine",
    ]);
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 2_000 });
    expect(await holdsRight(old, 1)).toBe(false);
    expect(troubles).toEqual(["off"]);
  });
});

describe("whatever happens to the files", () => {
  it("finds any change of any byte of an entry, and samples of the data", async () => {
    const store = open(TINY);
    undo.push(() => store.close());
    for (let n = 0; n < 4; n += 1) await store.write(keyOf(n), blockBytes(n));
    const index = readFileSync(fileOf("index"));
    let dropped = 0;
    for (let at = 0; at < index.length; at += 1) {
      alter(fileOf("index"), at, (byte) => byte ^ (1 << (at % 8)));
      for (let n = 0; n < 4; n += 1) if (!(await holdsRight(store, n))) dropped += 1;
      writeFileSync(fileOf("index"), index);
    }
    // Magic, key and digest of each.
    expect(dropped).toBe(4 * 72);
    for (let i = 0; i < 100; i += 1) {
      const at = i < 4 ? i * BLOCK_SIZE : Math.floor(Math.random() * 4 * BLOCK_SIZE);
      alter(fileOf("blocks"), at, (byte) => byte ^ 0x40);
      let lost = 0;
      for (let n = 0; n < 4; n += 1) if (!(await holdsRight(store, n))) lost += 1;
      expect(lost).toBe(1);
      alter(fileOf("blocks"), at, (byte) => byte ^ 0x40);
      writeFileSync(fileOf("index"), index);
    }
    expect(troubles).toEqual(["damaged"]);
  });

  it("does not believe an entry that was given another key", async () => {
    const store = open(TINY);
    undo.push(() => store.close());
    await store.write(keyOf(1), blockBytes(1));
    const index = readFileSync(fileOf("index"));
    const at = index.indexOf(keyOf(1));
    index.set(keyOf(2), at);
    writeFileSync(fileOf("index"), index);
    expect(store.holds(keyOf(2))).toBe(true);
    expect(await store.read(keyOf(2), target)).toBe(false);
    expect(store.holds(keyOf(2))).toBe(false);
  });

  it("never gives a wrong block, by any run of writes, reads, damage and openings", async () => {
    const operation = fc.oneof(
      { weight: 4, arbitrary: fc.record({ kind: fc.constant("write" as const), n: fc.nat(9) }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant("read" as const), n: fc.nat(9) }) },
      fc.record({
        kind: fc.constant("damage" as const),
        file: fc.constantFrom("index" as const, "blocks" as const),
        at: fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
        byte: fc.nat(255),
      }),
      fc.record({
        kind: fc.constant("cut" as const),
        file: fc.constantFrom("index" as const, "blocks" as const),
        to: fc.double({ min: 0, max: 1, noNaN: true }),
      }),
      fc.record({ kind: fc.constant("reopen" as const), size: fc.constantFrom(TINY, LARGE) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 40 }), async (operations) => {
        let store = open(TINY);
        let undamaged = true;
        let latest = -1;
        try {
          for (const step of operations) {
            if (step.kind === "write") {
              await store.write(keyOf(step.n), blockBytes(step.n));
              latest = step.n;
            } else if (step.kind === "read") {
              const found = await holdsRight(store, step.n);
              if (undamaged && step.n === latest) expect(found).toBe(true);
            } else if (step.kind === "reopen") {
              await store.close();
              store = open(step.size);
              latest = -1;
            } else {
              undamaged = false;
              const file = fileOf(step.file);
              const { size } = statSync(file);
              if (step.kind === "cut") truncateSync(file, Math.floor(step.to * size));
              else alter(file, Math.floor(step.at * size), () => step.byte);
            }
          }
        } finally {
          await store.close();
          for (const name of readdirSync(folder)) rmSync(join(folder, name));
        }
      }),
      { numRuns: 60 },
    );
  });

  it("refuses files that are no files of ours", () => {
    symlinkSync("/etc/passwd", join(folder, "ebsmount-index-v1-4"));
    expect(() => open(TINY)).toThrow();
    expect(existsSync(join(folder, "ebsmount-blocks-v1-4"))).toBe(false);
  });
});

describe("with other processes", () => {
  it("never reads a wrong block while they write and are killed", { timeout: 60_000 }, async () => {
    const store = open(TINY);
    undo.push(() => store.close());
    const script = new URL("./disk-cache-child.mjs", import.meta.url).pathname;
    const outputs: string[] = [];
    let seed = 1;
    const start = async (): Promise<ChildProcess> => {
      seed += 1;
      const child = spawn(process.execPath, [script, folder, String(TINY), String(seed)], {
        stdio: ["pipe", "pipe", "inherit"],
      });
      undo.push(() => child.kill("SIGKILL"));
      child.stdout?.on("data", (chunk) => outputs.push(String(chunk)));
      await new Promise<void>((resolve) => child.stdout?.once("data", () => resolve()));
      return child;
    };
    const steady = await start();
    let hits = 0;
    for (let round = 0; round < 5; round += 1) {
      const killed = await start();
      for (let i = 0; i < 60; i += 1) {
        if (await holdsRight(store, i % 12)) hits += 1;
        if (i % 3 === 0) await store.write(keyOf((i * 7) % 12), blockBytes((i * 7) % 12));
      }
      killed.kill("SIGKILL");
    }
    const ended = new Promise((resolve) => steady.once("exit", resolve));
    steady.stdin?.end();
    expect(await ended).toBe(0);
    expect(outputs.join("")).not.toContain("wrong");
    expect(hits).toBeGreaterThan(0);
    // And it goes on working.
    await store.write(keyOf(99), blockBytes(99));
    expect(await holdsRight(store, 99)).toBe(true);
  });
});
