/** The overlay device against a plain Buffer, without crashes: any operation at any alignment. */
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { BLOCK_SIZE, SECTOR_SIZE, TIB } from "../../src/common/sizes.js";
import { ZeroDevice } from "../../src/device/zero-device.js";
import { OverlayDevice } from "../../src/overlay/overlay-device.js";
import { createSession } from "../../src/overlay/session.js";
import { ReadOnlyMemoryDevice } from "../support/memory-device.js";
import { Scratch } from "../support/scratch.js";
import { CrashDisk, folderOn, newFolder } from "./crash-disk.js";

const SIZE = 3 * BLOCK_SIZE;

let scratch: Scratch;
beforeEach(() => {
  scratch = new Scratch();
});
afterEach(() => scratch.clean());

function patterned(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i += 1) bytes[i] = (i * 7 + (i >> 9) * 13) & 0xff;
  // A hole in the base.
  bytes.fill(0, BLOCK_SIZE, BLOCK_SIZE + 64 * 1024);
  return bytes;
}

const range = fc
  .tuple(
    fc.oneof(
      fc.nat(SIZE),
      fc.nat(SIZE / SECTOR_SIZE).map((n) => n * SECTOR_SIZE),
      fc.nat(4096),
    ),
    fc.oneof(
      fc.nat(600),
      fc.nat(20_000),
      fc.nat(16).map((n) => n * 4096),
      fc.constant(SIZE),
    ),
  )
  .map(([start, length]) => {
    const offset = Math.min(start, SIZE);
    return { offset, length: Math.min(length, SIZE - offset) };
  });

const operation = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("write" as const),
      range,
      byte: fc.integer({ min: 1, max: 255 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom("discard", "zero"), range }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("write zeros" as const), range }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("read" as const), range }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("view" as const), range }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("extents" as const), range }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("flush" as const), range }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("reopen" as const), range }) },
);

async function bytesOf(device: OverlayDevice, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length, 0xee);
  await device.read(offset, bytes);
  return bytes;
}

describe("OverlayDevice", () => {
  test("is a disk, whatever is done to it", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 40 }), async (operations) => {
        const base = new ReadOnlyMemoryDevice(patterned(SIZE));
        const model = Buffer.from(base.bytes);
        const disk = new CrashDisk();
        await newFolder(disk);
        const options = { masksInMemory: 2, takesDiscards: true };
        let device = await OverlayDevice.open(folderOn(disk, SIZE), base, options);
        for (const step of operations) {
          const { offset, length } = step.range;
          const end = offset + length;
          if (step.kind === "write") {
            const bytes = Buffer.alloc(length);
            for (let i = 0; i < length; i += 1) bytes[i] = (step.byte + i * 3) & 0xff;
            const reads = base.reads;
            await device.write(offset, bytes);
            expect(base.reads).toBe(reads);
            bytes.copy(model, offset);
          } else if (step.kind === "discard" || step.kind === "zero") {
            await device[step.kind](offset, length);
            model.fill(0, offset, end);
          } else if (step.kind === "write zeros") {
            await device.write(offset, Buffer.alloc(length));
            model.fill(0, offset, end);
          } else if (step.kind === "read") {
            const bytes = await bytesOf(device, offset, length);
            expect(bytes.equals(model.subarray(offset, end))).toBe(true);
          } else if (step.kind === "view") {
            const view = await device.view(offset, length);
            expect(Buffer.concat(view.parts).equals(model.subarray(offset, end))).toBe(true);
            view.release();
          } else if (step.kind === "extents") {
            let at = offset;
            for await (const extent of device.extents(offset, length)) {
              expect(extent.offset).toBe(at);
              expect(extent.length).toBeGreaterThan(0);
              at += extent.length;
              const bytes = model.subarray(extent.offset, at);
              if (extent.kind === "hole") expect(bytes.every((byte) => byte === 0)).toBe(true);
            }
            expect(at).toBe(end);
          } else if (step.kind === "flush") {
            await device.flush();
          } else {
            await device.close();
            device = await OverlayDevice.open(folderOn(disk, SIZE), base, options);
          }
          if (["write", "write zeros", "discard", "zero"].includes(step.kind)) {
            for (let at = offset; at < end; at += 4096) {
              expect(device.filter.mayBeDirty(Math.floor(at / BLOCK_SIZE))).toBe(true);
            }
          }
        }
        expect((await bytesOf(device, 0, SIZE)).equals(model)).toBe(true);
        expect(base.viewsHeld).toBe(0);
        await device.close();
      }),
      { numRuns: 120 },
    );
  });

  test("takes any number of bytes here and there without reading the base", async () => {
    const base = new ReadOnlyMemoryDevice(patterned(SIZE));
    const model = Buffer.from(base.bytes);
    const disk = new CrashDisk();
    await newFolder(disk);
    const options = { masksInMemory: 10 };
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base, options);
    base.beforeRead = () => Promise.reject(new Error("the base is out of reach"));
    for (let sector = 0; sector < SIZE / SECTOR_SIZE; sector += 1) {
      const offset = sector * SECTOR_SIZE + (sector % 500);
      await device.write(offset, Buffer.alloc(3, sector));
      model.fill(sector, offset, offset + 3);
    }
    await device.close();
    base.beforeRead = () => Promise.resolve();
    const again = await OverlayDevice.open(folderOn(disk, SIZE), base, options);
    expect((await bytesOf(again, 0, SIZE)).equals(model)).toBe(true);
    await again.close();
  });

  test.each(["gone", "cut short"])("refuses to open where an overlay file is %s", async (how) => {
    const base = new ReadOnlyMemoryDevice(patterned(SIZE));
    const disk = new CrashDisk();
    await newFolder(disk);
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base);
    await device.write(SIZE - 3 * SECTOR_SIZE, Buffer.alloc(2 * SECTOR_SIZE, 1));
    await device.write(SIZE - 10, Buffer.alloc(5, 2));
    await device.close();
    // To its last written byte and no further: that is whole.
    expect(disk.contentOf("overlay.img").length).toBe(SIZE - 5);
    await (await OverlayDevice.open(folderOn(disk, SIZE), base)).close();
    if (how === "gone") disk.remove("overlay.img");
    else disk.cut("overlay.img", SIZE - 6);
    await expect(OverlayDevice.open(folderOn(disk, SIZE), base)).rejects.toMatchObject({
      errno: "EIO",
      message: expect.stringMatching(how === "gone" ? /missing or empty/ : /cut short/),
    });
  });

  test("shows a write to every read that began after it, and to others whole or not at all", async () => {
    const base = new ReadOnlyMemoryDevice(patterned(SIZE));
    const disk = new CrashDisk();
    await newFolder(disk);
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base);
    let letGo = () => {};
    base.beforeRead = () => new Promise<void>((resolve) => (letGo = resolve));
    // Half a sector first: the read needs the base for the rest.
    await device.write(512, Buffer.alloc(100, 1));
    const target = Buffer.alloc(2048);
    const reading = device.read(0, target);
    await device.write(512, Buffer.alloc(512, 2));
    await device.write(1024, Buffer.alloc(512, 3));
    letGo();
    await reading;
    const expected = Buffer.from(base.bytes.subarray(0, 2048));
    expected.fill(2, 512, 1024).fill(3, 1024, 1536);
    expect(target.equals(expected)).toBe(true);
    base.beforeRead = () => {
      throw new Error("the base must not be asked");
    };
    expect(await bytesOf(device, 512, 1024)).toEqual(expected.subarray(512, 1536));
    await device.close();
  });

  test("fails a read whose base fails, and still takes writes there", async () => {
    const base = new ReadOnlyMemoryDevice(patterned(SIZE));
    const disk = new CrashDisk();
    await newFolder(disk);
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base);
    base.beforeRead = () => {
      throw new Error("no network");
    };
    await device.write(10, Buffer.from("abc"));
    await expect(bytesOf(device, 0, 512)).rejects.toThrow("no network");
    await device.zero(0, 512);
    expect(await bytesOf(device, 0, 512)).toEqual(Buffer.alloc(512));
    await device.close();
  });

  test("does not sync where nothing changed, and shares syncs", async () => {
    const disk = new CrashDisk();
    await newFolder(disk);
    const device = await OverlayDevice.open(folderOn(disk, SIZE), new ZeroDevice(SIZE));
    const before = disk.syncs;
    await device.flush();
    expect(disk.syncs).toBe(before);
    await device.write(0, Buffer.alloc(4096, 1));
    await Promise.all(Array.from({ length: 20 }, () => device.flush()));
    // Two flushes at most (the running one and the next that all others share), two files each.
    expect(disk.syncs - before).toBeLessThanOrEqual(4);
    const rewritten = disk.syncs;
    await device.write(0, Buffer.alloc(4096, 2));
    await device.flush();
    expect(disk.syncs - rewritten).toBe(1);
    await device.close();
  });

  test("keeps to --overlay-limit, and rewriting is free", async () => {
    const disk = new CrashDisk();
    await newFolder(disk);
    const options = { limitBytes: 8192 };
    const device = await OverlayDevice.open(folderOn(disk, SIZE), new ZeroDevice(SIZE), options);
    await device.write(0, Buffer.alloc(8192, 1));
    await expect(device.write(8192, Buffer.alloc(512, 1))).rejects.toMatchObject({
      errno: "ENOSPC",
    });
    await device.write(4096, Buffer.alloc(4096, 2));
    await device.zero(0, 4096);
    await device.write(100_000, Buffer.alloc(512, 3));
    expect(device.dirtyBytes).toBeLessThanOrEqual(8192);
    await device.close();
  });

  test("trusts nothing after a failed sync until it is opened again", async () => {
    const disk = new CrashDisk();
    await newFolder(disk);
    const base = new ReadOnlyMemoryDevice(patterned(SIZE));
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base);
    await device.write(0, Buffer.alloc(4096, 1));
    await device.flush();
    await device.write(4096, Buffer.alloc(4096, 2));
    disk.failSyncs = 1;
    await expect(device.flush()).rejects.toMatchObject({ errno: "EIO" });
    await expect(device.flush()).rejects.toMatchObject({ errno: "EIO" });
    await expect(device.write(0, Buffer.alloc(1))).rejects.toMatchObject({ errno: "EIO" });
    await expect(bytesOf(device, 0, 10)).rejects.toMatchObject({ errno: "EIO" });
    expect(await bytesOf(device, 8192, 10)).toEqual(base.bytes.subarray(8192, 8202));
    await expect(device.close()).rejects.toMatchObject({ errno: "EIO" });
    const again = await OverlayDevice.open(folderOn(disk, SIZE), base);
    expect(await bytesOf(again, 0, 4096)).toEqual(Buffer.alloc(4096, 1));
    expect(await bytesOf(again, 4096, 4096)).toEqual(base.bytes.subarray(4096, 8192));
    await again.close();
  });

  test("gives back the disk space of zeroed data once that is durable", async () => {
    const disk = new CrashDisk();
    await newFolder(disk);
    const device = await OverlayDevice.open(folderOn(disk, SIZE), new ZeroDevice(SIZE));
    await device.write(0, Buffer.alloc(65_536, 1));
    await device.flush();
    await device.zero(0, 65_536);
    await new Promise((resolve) => setImmediate(resolve));
    expect(disk.contentOf("overlay.img")[100]).toBe(1);
    await device.flush();
    await expect.poll(() => disk.contentOf("overlay.img")[100]).toBe(0);
    await device.close();
  });

  test.each(["zero", "discard"] as const)(
    "%ss 64 TiB and writes at its end, in a real folder",
    async (how) => {
      const session = await createSession(scratch.path, { kind: "rw", volumeSizeGiB: 65_536 });
      scratch.undo(() => session.close());
      const options = { takesDiscards: true };
      const device = await OverlayDevice.open(session, new ZeroDevice(64 * TIB), options);
      await device[how](0, 64 * TIB);
      await device.write(64 * TIB - 1000, Buffer.alloc(1000, 5));
      await device.write(8 * TIB - 100, Buffer.alloc(200, 6));
      await device.flush();
      await device.close();
      const again = await OverlayDevice.open(session, new ZeroDevice(64 * TIB));
      const tail = await bytesOf(again, 64 * TIB - 1024, 1024);
      expect(tail).toEqual(Buffer.concat([Buffer.alloc(24), Buffer.alloc(1000, 5)]));
      const seam = await bytesOf(again, 8 * TIB - 101, 202);
      expect(seam).toEqual(Buffer.concat([Buffer.alloc(1), Buffer.alloc(200, 6), Buffer.alloc(1)]));
      expect(again.filter.mayBeDirty(77)).toBe(true);
      expect(again.isWritten(77)).toBe(how === "zero");
      expect(again.dirtyBytes).toBe(4 * 512);
      await again.close();
    },
  );

  test("tells written zeros from what was never written or only discarded", async () => {
    const SECTORS = SIZE / SECTOR_SIZE;
    const sectors = fc
      .tuple(fc.nat(SECTORS), fc.oneof(fc.nat(20), fc.nat(SECTORS), fc.constant(1024)))
      .map(([first, count]) => ({ first, count: Math.min(count, SECTORS - first) }));
    const change = fc.record({
      kind: fc.constantFrom("write", "write zeros", "zero", "discard", "discard", "reopen"),
      sectors,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 25 }), async (changes) => {
        // The base has data in block 0 only.
        const base = new ReadOnlyMemoryDevice(Buffer.alloc(SIZE).fill(9, 0, BLOCK_SIZE), {
          unit: BLOCK_SIZE,
        });
        const disk = new CrashDisk();
        await newFolder(disk);
        const options = { takesDiscards: true };
        let device = await OverlayDevice.open(folderOn(disk, SIZE), base, options);
        const model: ("base" | "data" | "hole")[] = new Array(SECTORS).fill("base");
        for (const { kind, sectors: range } of changes) {
          const offset = range.first * SECTOR_SIZE;
          const length = range.count * SECTOR_SIZE;
          if (kind === "write") await device.write(offset, Buffer.alloc(length, 1));
          if (kind === "write zeros") await device.write(offset, Buffer.alloc(length));
          if (kind === "zero" || kind === "discard") await device[kind](offset, length);
          if (kind === "reopen") {
            await device.close();
            device = await OverlayDevice.open(folderOn(disk, SIZE), base, options);
          } else {
            const end = range.first + range.count;
            model.fill(kind === "discard" ? "hole" : "data", range.first, end);
          }
        }
        for await (const { offset, length, kind } of device.extents(0, SIZE)) {
          for (let at = offset; at < offset + length; at += SECTOR_SIZE) {
            const state = model[at / SECTOR_SIZE] as string;
            const below = at < BLOCK_SIZE ? "data" : "hole";
            expect(`${at}: ${kind}`).toBe(`${at}: ${state === "base" ? below : state}`);
          }
        }
        for (let block = 0; block < SIZE / BLOCK_SIZE; block += 1) {
          const states = model.slice(block * 1024, (block + 1) * 1024);
          expect(device.isWritten(block)).toBe(states.includes("data"));
        }
        await device.close();
      }),
      { numRuns: 80 },
    );
  });

  test("refuses discards unless it takes them, and is as it was", async () => {
    const base = new ReadOnlyMemoryDevice(patterned(SIZE));
    const disk = new CrashDisk();
    await newFolder(disk);
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base);
    await expect(device.discard(0, SIZE)).rejects.toMatchObject({ errno: "EOPNOTSUPP" });
    expect(device.isUntouched).toBe(true);
    expect((await bytesOf(device, 0, SIZE)).equals(base.bytes)).toBe(true);
    await device.close();
  });

  test("notes long zeros instead of storing them, at any alignment", async () => {
    const disk = new CrashDisk();
    await newFolder(disk);
    const options = { limitBytes: 4096 };
    const base = new ReadOnlyMemoryDevice(patterned(SIZE));
    const device = await OverlayDevice.open(folderOn(disk, SIZE), base, options);
    await device.write(100, Buffer.alloc(SIZE - 200));
    // The first and the last sector are written in part; the rest takes no space.
    expect(device.dirtyBytes).toBe(2 * SECTOR_SIZE);
    const expected = Buffer.from(base.bytes).fill(0, 100, SIZE - 100);
    expect((await bytesOf(device, 0, SIZE)).equals(expected)).toBe(true);
    await device.close();
  });

  test("grows past its base with zeros", async () => {
    const disk = new CrashDisk();
    await newFolder(disk);
    const base = new ReadOnlyMemoryDevice(patterned(SIZE));
    const device = await OverlayDevice.open(folderOn(disk, 2 * SIZE), base);
    await device.write(SIZE - 100, Buffer.alloc(200, 9));
    const bytes = await bytesOf(device, SIZE - 200, 400);
    expect(bytes.subarray(0, 100)).toEqual(base.bytes.subarray(SIZE - 200, SIZE - 100));
    expect(bytes.subarray(100, 300)).toEqual(Buffer.alloc(200, 9));
    expect(bytes.subarray(300)).toEqual(Buffer.alloc(100));
    await device.close();
  });
});
