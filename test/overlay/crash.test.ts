/**
 * kill -9 and power loss at any operation, in any order, with an arbitrary subset of unsynced sectors on
 * the disk: what was flushed, or seen by a later process, is there, and nothing is seen that was never
 * written or is older.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { BLOCK_SIZE, SECTOR_SIZE } from "../../src/common/sizes.js";
import { Journal } from "../../src/overlay/journal.js";
import { OverlayDevice } from "../../src/overlay/overlay-device.js";
import { ReadOnlyMemoryDevice } from "../support/memory-device.js";
import { randomSource } from "../support/random.js";
import { CrashDisk, folderOn, newFolder, PowerLoss } from "./crash-disk.js";

const SIZE = 2 * BLOCK_SIZE;
/** Few places, so that the same ones are written, discarded and written again. */
const AREA = 24 * 1024;
const OPTIONS = { takesDiscards: true };

/** All contents that the disk may have now: the last flushed and every one since. */
class History {
  #versions: Buffer[];

  constructor(content: Buffer) {
    this.#versions = [content];
  }

  change(make: (next: Buffer) => void): void {
    const next = Buffer.from(this.#versions.at(-1)!);
    make(next);
    this.#versions.push(next);
  }

  get mark(): number {
    return this.#versions.length - 1;
  }

  /** The version of that mark is flushed. */
  flushed(mark: number): void {
    this.#versions.splice(0, mark);
  }

  get newest(): Buffer {
    return this.#versions.at(-1)!;
  }

  /** First unit that is of none of the versions, or undefined. */
  strange(found: Buffer, unit: number): number | undefined {
    const known = (at: number, end: number) =>
      this.#versions.some((v) => found.compare(v, at, end, at, end) === 0);
    for (let sector = 0; sector < AREA + BLOCK_SIZE; sector += SECTOR_SIZE) {
      if (known(sector, sector + SECTOR_SIZE)) continue;
      for (let at = sector; at < sector + SECTOR_SIZE; at += unit) {
        if (!known(at, at + unit)) return at;
      }
    }
    return undefined;
  }
}

/** One life up to a loss of power, or to its being killed. @returns the disk after it */
async function life(
  disk: CrashDisk,
  history: History,
  random: () => number,
  aligned: boolean,
): Promise<CrashDisk> {
  const base = new ReadOnlyMemoryDevice(Buffer.alloc(SIZE, 0xba));
  const pick = (limit: number) => Math.floor(random() * limit);
  const place = () => {
    const start = random() < 0.2 ? BLOCK_SIZE : 0;
    const unit = aligned ? SECTOR_SIZE : 1;
    const offset = pick(AREA / unit) * unit;
    const longest = random() < 0.5 ? 2 * SECTOR_SIZE : AREA;
    const length = Math.max(unit, pick(Math.min(longest, AREA - offset) / unit) * unit);
    return { offset: start + offset, length };
  };
  disk.operationsLeft = 3 + pick(60);
  try {
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base, OPTIONS);
    const flushes: Promise<unknown>[] = [];
    for (let step = 0; step < 60; step++) {
      const { offset, length } = place();
      const dice = random();
      if (dice < 0.55) {
        const fill = 1 + pick(255);
        history.change((next) => next.fill(fill, offset, offset + length));
        await device.write(offset, Buffer.alloc(length, fill));
      } else if (dice < 0.75) {
        history.change((next) => next.fill(0, offset, offset + length));
        await device[random() < 0.5 ? "zero" : "discard"](offset, length);
      } else if (dice < 0.85) {
        const { mark } = history;
        await device.flush();
        history.flushed(mark);
      } else if (dice < 0.95) {
        // Not waited for: the writes after it come while it runs.
        flushes.push(device.flush().catch(() => {}));
      } else {
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    await Promise.all(flushes);
    disk.operationsLeft = 0;
  } catch (error) {
    const lost = error instanceof PowerLoss || disk.operationsLeft <= 0;
    if (!lost) throw error;
  }
  return random() < 0.4 ? disk.afterKill() : disk.afterLoss(random);
}

async function survives(seed: number, aligned: boolean): Promise<void> {
  const random = randomSource(seed);
  let disk = new CrashDisk();
  await newFolder(disk);
  let history = new History(Buffer.alloc(SIZE, 0xba));
  for (let n = 0; n < 4; n++) {
    disk = await life(disk, history, random, aligned);
    const base = new ReadOnlyMemoryDevice(Buffer.alloc(SIZE, 0xba));
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base);
    const found = Buffer.alloc(SIZE);
    await device.read(0, found);
    expect(history.strange(found, aligned ? SECTOR_SIZE : 1)).toBeUndefined();
    await device.close();
    // What has been seen after a kill must be there after a loss of power.
    history = new History(found);
  }
}

describe("a session on a disk that loses power", () => {
  test("has every sector as flushed or newer", async () => {
    const lives = fc.asyncProperty(fc.integer(), (seed) => survives(seed, true));
    await fc.assert(lives, { numRuns: 150 });
  });

  test("has every byte as flushed or newer where writes are not whole sectors", async () => {
    const lives = fc.asyncProperty(fc.integer(), (seed) => survives(seed, false));
    await fc.assert(lives, { numRuns: 60 });
  });

  test("rewrites a long journal without losing anything, at any instant", async () => {
    const random = randomSource(7);
    for (let cut = 1; cut < 80; cut++) {
      const disk = new CrashDisk();
      await newFolder(disk);
      const base = new ReadOnlyMemoryDevice(Buffer.alloc(SIZE, 0xba));
      disk.operationsLeft = cut + 20;
      let flushed = 0;
      let journal: Journal | undefined;
      try {
        const { DirtyMap } = await import("../../src/overlay/dirty-map.js");
        const { OverlayStore } = await import("../../src/overlay/overlay-store.js");
        const map = new DirtyMap();
        const store = new OverlayStore(disk, SIZE);
        const folder = folderOn(disk, SIZE);
        const sectors = SIZE / SECTOR_SIZE;
        journal = new Journal(disk, store, map, sectors, folder.reserve, () => {}, 2048);
        for (let n = 0; n < 30; n++) {
          store.writeAt(n * 1024, Buffer.alloc(512, n + 1));
          journal.wrote();
          if (map.set(n * 2, n * 2 + 1, 1)) journal.changed(0, 1);
          await journal.flush();
          flushed = n + 1;
        }
      } catch (error) {
        expect(disk.operationsLeft, String(error)).toBeLessThanOrEqual(0);
      }
      const after = await OverlayDevice.open(folderOn(disk.afterLoss(random), SIZE), base);
      for (let n = 0; n < flushed; n++) {
        const sector = Buffer.alloc(512);
        await after.read(n * 1024, sector);
        expect(sector.equals(Buffer.alloc(512, n + 1))).toBe(true);
      }
      await after.close();
    }
  });
});

describe("a full disk", () => {
  test("is told to the writer and leaves the session sound", async () => {
    const disk = new CrashDisk();
    await newFolder(disk);
    const base = new ReadOnlyMemoryDevice(Buffer.alloc(SIZE, 0xba));
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base);
    await device.write(0, Buffer.alloc(65_536, 1));
    await device.flush();
    disk.capacity = disk.contentOf("overlay.img").length + disk.contentOf("journal").length;
    disk.capacity += disk.contentOf("reserve").length + 100;
    await expect(device.write(65_536, Buffer.alloc(4096, 2))).rejects.toMatchObject({
      errno: "ENOSPC",
    });
    await device.write(0, Buffer.alloc(512, 3));
    await device.zero(4096, 4096);
    await device.flush();
    const expected = Buffer.alloc(65_536 + 4096, 1);
    expected.fill(3, 0, 512).fill(0, 4096, 8192).fill(0xba, 65_536);
    const found = Buffer.alloc(expected.length);
    await device.read(0, found);
    expect(found.equals(expected)).toBe(true);
    await device.close();
    const again = await OverlayDevice.open(folderOn(disk, SIZE), base);
    await again.read(0, found);
    expect(found.equals(expected)).toBe(true);
    await again.close();
  });
});
