import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ROOT_INODE } from "../../src/filesystem/filesystem.js";
import { createFileSystem } from "../../src/filesystem/image-directory.js";
import { MAX_EXTENTS_PER_SEEK } from "../../src/filesystem/seek.js";
import { MemoryDevice, ReadOnlyMemoryDevice } from "../support/memory-device.js";

const SIZE = 64 * 1024;

function readOnly(options = {}) {
  const device = new ReadOnlyMemoryDevice(Buffer.alloc(SIZE, 7));
  const files = createFileSystem([{ name: "a.img", device }], options);
  return { device, files, inode: files.lookup(ROOT_INODE, "a.img").inode };
}

function writable() {
  const device = new MemoryDevice(Buffer.alloc(SIZE));
  const files = createFileSystem([{ name: "a.img", device }]);
  return { device, files, inode: files.lookup(ROOT_INODE, "a.img").inode };
}

async function errnoOf(work: () => unknown): Promise<string> {
  try {
    await work();
  } catch (error) {
    return (error as { errno: string }).errno;
  }
  return "none";
}

describe("names and attributes", () => {
  it("shows each image under its name with its exact size", () => {
    const files = createFileSystem([
      { name: "a.img", device: new ReadOnlyMemoryDevice(Buffer.alloc(SIZE)) },
      { name: "b.img", device: new ReadOnlyMemoryDevice(Buffer.alloc(2 * SIZE)) },
    ]);
    expect(files.list(ROOT_INODE).map((entry) => entry.name)).toEqual(["a.img", "b.img"]);
    expect(files.lookup(ROOT_INODE, "b.img").size).toBe(2 * SIZE);
    expect(() => files.lookup(ROOT_INODE, "c.img")).toThrow(/no file c.img/);
    expect(files.statfs()).toMatchObject({ blocks: (3 * SIZE) / 4096, freeBlocks: 0 });
  });

  it("keeps others out unless the mount is open to them", () => {
    const modes = (options: object) => {
      const { files, inode } = readOnly(options);
      return [files.attributes(ROOT_INODE).mode, files.attributes(inode).mode];
    };
    expect(modes({})).toEqual([0o500, 0o400]);
    expect(modes({ allowOther: true })).toEqual([0o555, 0o444]);
    expect(modes({ umask: 0o027 })).toEqual([0o550, 0o440]);
    const { files, inode } = writable();
    expect(files.attributes(inode).mode).toBe(0o600);
  });

  it("reports less than the size while nobody knows what is written, and lets it be asked again", () => {
    const device = new ReadOnlyMemoryDevice(Buffer.alloc(SIZE), { known: false });
    const files = createFileSystem([{ name: "a.img", device }]);
    expect(files.lookup(ROOT_INODE, "a.img").sectors).toBe(SIZE / 512 - 1);
    expect(files.timeToLive).toBe(1);
    expect(readOnly().files.timeToLive).toBeGreaterThan(1);
    expect(readOnly().files.lookup(ROOT_INODE, "a.img").sectors).toBe(SIZE / 512);
  });

  it("refuses names that are no names", () => {
    const device = new ReadOnlyMemoryDevice(Buffer.alloc(512));
    for (const name of ["", ".", "..", "a/b", "x".repeat(256)]) {
      expect(() => createFileSystem([{ name, device }])).toThrow(/cannot be a file's name/);
    }
    const twice = [
      { name: "a", device },
      { name: "a", device },
    ];
    expect(() => createFileSystem(twice)).toThrow(/cannot both/);
  });

  it("accepts changes that change nothing and refuses the others", async () => {
    const { files, inode } = writable();
    const set = (changes: object) => errnoOf(() => files.setAttributes(inode, changes));
    expect(await set({ size: SIZE })).toBe("none");
    expect(await set({ size: 0 })).toBe("EPERM");
    expect(await set({ mode: 0o600 })).toBe("none");
    expect(await set({ mode: 0o644 })).toBe("EPERM");
    expect(await set({ uid: 12345 })).toBe("EPERM");
    expect(await set({ modifiedAt: 1000 })).toBe("none");
    expect(files.attributes(inode).modifiedAt).toBe(1000);
    const fixed = readOnly();
    expect(await errnoOf(() => fixed.files.setAttributes(fixed.inode, { modifiedAt: 1 }))).toBe(
      "EROFS",
    );
  });
});

describe("reading and writing", () => {
  it("agrees with a plain buffer whatever is read, written and discarded", async () => {
    const range = fc.record({
      kind: fc.constantFrom("read", "write", "discard"),
      offset: fc.nat(SIZE + 100),
      length: fc.nat(9000),
      byte: fc.integer({ min: 1, max: 255 }),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(range, { maxLength: 30 }), async (steps) => {
        const { device, files, inode } = writable();
        const model = Buffer.alloc(SIZE);
        const { handle } = files.open(inode, true, false);
        for (const { kind, offset, length, byte } of steps) {
          const end = Math.min(offset + length, SIZE);
          if (kind === "read") {
            const view = await files.read(handle, offset, length);
            const got = Buffer.concat(view.parts);
            view.release();
            expect(got.equals(model.subarray(Math.min(offset, SIZE), end))).toBe(true);
          } else if (kind === "discard") {
            await files.discard(handle, offset, length);
            if (offset < SIZE) model.fill(0, offset, end);
          } else {
            const data = Buffer.alloc(length, byte);
            const errno = await errnoOf(() => files.write(handle, offset, data));
            expect(errno).toBe(offset + length > SIZE ? "EFBIG" : "none");
            if (errno === "none") model.set(data, offset);
          }
        }
        expect(device.viewsHeld).toBe(0);
        expect(device.bytes.equals(model)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it("refuses writers on a read-only mount and on a read-only handle", async () => {
    const { files, inode } = readOnly();
    expect(await errnoOf(() => files.open(inode, true, false))).toBe("EROFS");
    const { handle } = files.open(inode, false, false);
    expect(await errnoOf(() => files.write(handle, 0, Buffer.alloc(1)))).toBe("EBADF");
    const other = writable();
    const reader = other.files.open(other.inode, false, false).handle;
    expect(await errnoOf(() => other.files.write(reader, 0, Buffer.alloc(1)))).toBe("EBADF");
    expect(await errnoOf(() => other.files.discard(reader, 0, 1))).toBe("EBADF");
  });

  it("shows a writable device read-only where the mount is", async () => {
    const device = new MemoryDevice(Buffer.alloc(SIZE));
    const files = createFileSystem([{ name: "a.img", device }], { readOnly: true });
    const { inode, mode } = files.lookup(ROOT_INODE, "a.img");
    expect(mode).toBe(0o400);
    expect(await errnoOf(() => files.open(inode, true, false))).toBe("EROFS");
  });

  it("makes O_SYNC writes, fsync and the close of a writer durable, and no reader's close", async () => {
    const { device, files, inode } = writable();
    const sync = files.open(inode, true, true).handle;
    await files.write(sync, 0, Buffer.from("x"));
    expect(device.flushes).toBe(1);
    await files.discard(sync, 0, 512);
    expect(device.flushes).toBe(2);
    const plain = files.open(inode, true, false).handle;
    await files.write(plain, 0, Buffer.from("x"));
    expect(device.flushes).toBe(2);
    await files.flushOnClose(plain);
    expect(device.flushes).toBe(3);
    const reader = files.open(inode, false, false).handle;
    await files.flushOnClose(reader);
    expect(device.flushes).toBe(3);
    await files.flush(reader);
    expect(device.flushes).toBe(4);
    files.release(reader);
    expect(await errnoOf(() => files.flush(reader))).toBe("EBADF");
  });
});

describe("seek", () => {
  it("finds what a walk over the units finds", async () => {
    const unit = 512;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.boolean(), { minLength: 1, maxLength: 40 }),
        fc.nat(50 * unit),
        async (written, offset) => {
          const bytes = Buffer.alloc(written.length * unit);
          written.forEach((data, i) => {
            if (data) bytes.fill(1, i * unit, (i + 1) * unit);
          });
          const device = new ReadOnlyMemoryDevice(bytes, { unit });
          const files = createFileSystem([{ name: "a", device }]);
          const { handle } = files.open(ROOT_INODE + 1, false, false);
          const expected = (data: boolean): number | undefined => {
            for (let at = offset; at < bytes.length; at += 1) {
              if (written[Math.floor(at / unit)] === data) return at;
            }
            return data || offset >= bytes.length ? undefined : bytes.length;
          };
          for (const whence of ["data", "hole"] as const) {
            const wanted = expected(whence === "data");
            if (wanted === undefined) {
              expect(await errnoOf(() => files.seek(handle, offset, whence))).toBe("ENXIO");
            } else {
              expect(await files.seek(handle, offset, whence)).toBe(wanted);
            }
          }
        },
      ),
    );
  });

  it("bounds one call, and a walk by turns still meets every byte of data", async () => {
    const unit = 512;
    const units = 3 * MAX_EXTENTS_PER_SEEK + 5;
    const bytes = Buffer.alloc(units * unit, 1);
    bytes.fill(0, 10 * unit, (20 + 2 * MAX_EXTENTS_PER_SEEK) * unit);
    const device = new ReadOnlyMemoryDevice(bytes, { unit });
    const files = createFileSystem([{ name: "a", device }]);
    const { handle } = files.open(ROOT_INODE + 1, false, false);
    const copy = Buffer.alloc(bytes.length);
    let at = 0;
    let calls = 0;
    while (at < bytes.length && calls < 100) {
      const data = await files.seek(handle, at, "data");
      const hole = await files.seek(handle, data, "hole");
      bytes.copy(copy, data, data, hole);
      expect(hole).toBeGreaterThan(data);
      at = hole;
      calls += 1;
    }
    expect(copy.equals(bytes)).toBe(true);
    const full = new ReadOnlyMemoryDevice(Buffer.alloc(units * unit, 1), { unit });
    const all = createFileSystem([{ name: "a", device: full }]);
    const end = await all.seek(all.open(ROOT_INODE + 1, false, false).handle, 0, "hole");
    expect(end).toBe(MAX_EXTENTS_PER_SEEK * unit);
    expect(await all.seek(1, end, "data")).toBe(end);
  });
});
