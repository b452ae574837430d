/**
 * Written zeros are data: file systems with large files of zeros become snapshots by import, create and
 * --rw, and are whole on a volume that shows random bytes wherever the snapshot has no block.
 */
import { closeSync, mkdirSync, openSync, rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Fiemap, openFiemap, writtenRanges } from "../../src/common/extents.js";
import { BLOCK_SIZE } from "../../src/common/sizes.js";
import { Rig } from "../support/rig.js";
import { must, run } from "../support/scratch.js";
import { blocksOf, volumeFile } from "../support/volume-view.js";

let rig: Rig;
let disk: string;
beforeAll(async () => {
  rig = await Rig.start();
  disk = rig.scratch.file("disk");
  mkdirSync(disk);
  rig.scratch.undo(() => run("umount", [disk]));
});
afterAll(() => rig.clean());

const FILE_SYSTEMS = [
  { kind: "ext4", make: "mkfs.ext4 -q", check: "e2fsck -fn" },
  { kind: "xfs", make: "mkfs.xfs -q", check: "xfs_repair -n" },
  { kind: "btrfs", make: "mkfs.btrfs -q", check: "btrfs check" },
] as const;

async function attach(file: string): Promise<string> {
  const loop = (await must("losetup", ["-f", "--show", file])).trim();
  rig.scratch.undo(() => run("losetup", ["-d", loop]));
  return loop;
}

/** Runs a script with a file's file system mounted at `disk`, its folder. */
async function inside(file: string, script: string): Promise<void> {
  const loop = await attach(file);
  await must("mount", [loop, disk]);
  try {
    await must("sh", ["-ec", `cd ${disk}; ${script}`]);
  } finally {
    await must("umount", [disk]);
    await must("losetup", ["-d", loop]);
  }
}

/** Zeros as programs make them, beside data; `name` keeps one round's files from the next's. */
function fillAndSum(name: string): string {
  return `mkdir ${name}
    dd if=/dev/zero of=${name}/zeros bs=1M count=64 status=none
    cp -r /usr/share/doc/util-linux ${name}/doc
    dd if=/dev/urandom of=${name}/data bs=1M count=5 status=none
    fallocate -l 24M ${name}/allocated
    dd if=/dev/urandom of=${name}/allocated bs=4k count=3 seek=700 conv=notrunc status=none
    fallocate -z -o 1M -l 3M ${name}/data
    sync
    dd if=/dev/zero of=${name}/data bs=1M count=1 seek=4 conv=notrunc,fsync status=none
    find . -type f -exec sha256sum {} + > ../sums`;
}

/** The file system is sound on a volume of the snapshot, and so is what is in it. */
async function isWholeOnAVolume(snapshot: string, check: string): Promise<void> {
  const volume = await volumeFile(rig, snapshot);
  await must("sh", ["-ec", `${check} ${volume}`]);
  // For writing: a file system that is mounted so makes use of its log.
  await inside(volume, "sha256sum --quiet -c ../sums; echo more > more; sync");
  await must("sh", ["-ec", `${check} ${volume}`]);
  rmSync(volume);
}

describe.each(FILE_SYSTEMS)("$kind with large files of zeros", ({ kind, make, check }) => {
  it("is whole on a volume when its image is imported", async () => {
    const image = await rig.image(`${kind}.img`, 1024 ** 3);
    await must("sh", ["-ec", `${make} ${image}`]);
    await inside(image, fillAndSum("one"));
    await isWholeOnAVolume(await rig.import(image), check);
  });

  it("is whole on a volume when it was made under create, and changed under --rw", async () => {
    const place = await rig.mount(["create", "--size", "1GiB"], kind);
    const loop = await attach(`${place}/volume.img`);
    await must("sh", ["-ec", `${make} ${loop}`]);
    await must("losetup", ["-d", loop]);
    await inside(`${place}/volume.img`, fillAndSum("one"));
    const first = (await rig.must(["unmount", place])).trim();
    await isWholeOnAVolume(first, check);

    const again = await rig.mount(["mount", "--rw", first], `${kind}-rw`);
    await inside(
      `${again}/${first}.img`,
      `rm one/zeros; dd if=/dev/zero of=one/data bs=1M count=5 status=none; ${fillAndSum("two")}`,
    );
    await isWholeOnAVolume((await rig.must(["unmount", again])).trim(), check);
  });
});

describe("a fresh mkfs.xfs image", () => {
  it("mounts from a volume when imported, though its log is nothing but unwritten extents", async () => {
    const image = await rig.image("fresh.img", 1024 ** 3);
    await must("mkfs.xfs", ["-q", image]);
    const volume = await volumeFile(rig, await rig.import(image));
    await must("xfs_repair", ["-n", volume]);
    await inside(volume, "echo hello > hello; sync");
    rmSync(volume);
  });

  it("does not when zeros are left out on demand: the volume shows it", async () => {
    const image = await rig.image("omitted.img", 1024 ** 3);
    await must("mkfs.xfs", ["-q", image]);
    const volume = await volumeFile(rig, await rig.import(image, "--omit-zero-blocks"));
    const loop = await attach(volume);
    const { status } = await run("mount", [loop, disk]);
    await must("losetup", ["-d", loop]);
    rmSync(volume);
    expect(status).not.toBe(0);
  });
});

describe("an image of data, written zeros and holes", () => {
  /** Blocks 0 and 7 hold data, 2 to 4 and 9 zeros of two kinds; the others are holes. */
  const WRITTEN = [0, 2, 3, 4, 7, 9];
  let snapshot: string;
  beforeAll(async () => {
    const image = await rig.image("three.img", 1024 ** 3, [0, BLOCK_SIZE], [7 * BLOCK_SIZE, 10]);
    const zeros = ["if=/dev/zero", "bs=512k", "seek=2", "count=3", "conv=notrunc"];
    await must("dd", [...zeros, `of=${image}`, "status=none"]);
    await must("fallocate", ["-z", "-o", String(9 * BLOCK_SIZE), "-l", "4096", image]);
    snapshot = await rig.import(image);
    expect(await blocksOf(rig, snapshot)).toEqual(WRITTEN);
  });

  it.each(FILE_SYSTEMS)("is the same blocks after export to $kind and import", async (fs) => {
    const small = await rig.image(`small-${fs.kind}.img`, 1024 ** 3);
    await must("sh", ["-ec", `${fs.make} ${small}`]);
    const loop = await attach(small);
    const place = rig.scratch.file(`small-${fs.kind}`);
    mkdirSync(place);
    await must("mount", [loop, place]);
    rig.scratch.undo(() => run("umount", [place]));
    await rig.must(["export", snapshot, `${place}/out.img`]);
    expect(await blocksOf(rig, await rig.import(`${place}/out.img`))).toEqual(WRITTEN);
    // Zeros cost no space where the file system can note them.
    expect(Number((await must("du", ["-k", `${place}/out.img`])).split("\t")[0])).toBeLessThan(
      6000,
    );
    await must("umount", [place]);
    await must("losetup", ["-d", loop]);
  });

  it("is the same blocks after an export whose zeros were lost from the unfinished file", async () => {
    const out = rig.scratch.file("resumed.img");
    const failing = { action: "error", operations: ["GetSnapshotBlock"], blocks: [9, 9] } as const;
    rig.endpoint.faults.add({ ...failing, name: "AccessDeniedException", status: 403 });
    const { status } = await rig
      .run(["export", "--concurrency", "1", snapshot, out])
      .finally(() => rig.endpoint.faults.clear());
    expect(status).toBe(1);
    // As after a loss of power: the ledger knows the blocks, the file has lost their extents.
    const lost = ["-p", "-o", String(2 * BLOCK_SIZE), "-l", String(3 * BLOCK_SIZE)];
    await must("fallocate", [...lost, `${out}.partial`]);
    // And an extent where a hole belongs.
    await must("fallocate", ["-o", String(20 * BLOCK_SIZE), "-l", "4096", `${out}.partial`]);
    rig.endpoint.resetStats();
    await rig.must(["export", snapshot, out]);
    expect(rig.endpoint.stats().operations.GetSnapshotBlock.calls).toBeLessThan(WRITTEN.length);
    expect(await blocksOf(rig, await rig.import(out))).toEqual(WRITTEN);
  });

  it("is written whole to a block device, holes as zeros", async () => {
    const file = rig.scratch.file("device.img");
    await must("sh", ["-ec", `tr '\\0' x < /dev/zero | head -c ${1024 ** 3} > ${file}`]);
    const loop = await attach(file);
    await rig.must(["export", snapshot, loop]);
    await must("losetup", ["-d", loop]);
    // Nothing below the device takes the zeros for holes.
    const fd = openSync(file, "r");
    let written = 0;
    for (const [start, end] of writtenRanges(openFiemap(fd) as Fiemap, 1024 ** 3)) {
      written += end - start;
    }
    closeSync(fd);
    expect(written).toBe(1024 ** 3);
    const out = rig.scratch.file("device.out");
    await rig.must(["export", snapshot, out]);
    await must("cmp", [file, out]);
  });
});

describe("under a mount that can be written", () => {
  const at = (block: number) => String(block * BLOCK_SIZE);
  const fallocate = (file: string, how: string, first: number, count: number) =>
    run("fallocate", [how, "-o", at(first), "-l", at(count), file]);
  /** As lseek tells, in blocks: [first, end) of each run of data. */
  async function dataRuns(file: string): Promise<string> {
    const script = `import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
at, end, runs = 0, os.fstat(fd).st_size, []
while at < end:
    try:
        at = os.lseek(fd, at, os.SEEK_DATA)
    except OSError:
        break
    hole = os.lseek(fd, at, os.SEEK_HOLE)
    runs.append(f"{at / ${BLOCK_SIZE}:g}-{hole / ${BLOCK_SIZE}:g}")
    at = hole
print(*runs)`;
    return (await must("python3", ["-c", script, file])).trim();
  }

  it("zeroed ranges are put, punches are refused and change nothing", async () => {
    const place = await rig.mount(["create", "--size", "1GiB"], "ranges");
    const file = `${place}/volume.img`;
    await must("dd", ["if=/dev/urandom", "bs=512k", "count=1", `of=${file}`, "conv=notrunc"]);
    const refused = await fallocate(file, "-p", 0, 4);
    expect(refused).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/unsupported|not supported/),
    });
    // Refused as this request, not for ever: what comes after is taken.
    expect(await fallocate(file, "-z", 4, 2)).toMatchObject({ status: 0 });
    expect((await fallocate(file, "-p", 0, 4)).status).toBe(1);
    expect(await fallocate(file, "-zn", 8, 1)).toMatchObject({ status: 0 });
    expect((await fallocate(file, "-z", 2047, 2)).stderr).toMatch(/too large/);
    expect(await dataRuns(file)).toBe("0-1 4-6 8-9");
    const snapshot = (await rig.must(["unmount", place])).trim();
    expect(await blocksOf(rig, snapshot)).toEqual([0, 4, 5, 8]);
  });

  it("--discard=holes takes punches as holes, and zeros where the parent has data", async () => {
    const parent = await rig.import(await rig.image("below.img", 1024 ** 3, [0, 2 * BLOCK_SIZE]));
    const options = ["mount", "--rw", "--discard=holes"];
    const place = await rig.mount([...options, parent], "holes");
    const file = `${place}/${parent}.img`;
    await must("dd", [
      "if=/dev/zero",
      "bs=512k",
      "seek=4",
      "count=4",
      `of=${file}`,
      "conv=notrunc",
    ]);
    expect(await fallocate(file, "-p", 1, 4)).toMatchObject({ status: 0 });
    expect(await dataRuns(file)).toBe("0-1 5-8");
    await must("cmp", ["-n", at(3), "-i", `${at(1)}:0`, file, "/dev/zero"]);
    const snapshot = (await rig.must(["unmount", place])).trim();
    expect(await blocksOf(rig, snapshot)).toEqual([0, 1, 5, 6, 7]);
    const out = rig.scratch.file("holes.out");
    await rig.must(["export", snapshot, out]);
    await must("cmp", ["-n", at(3), "-i", `${at(1)}:0`, out, "/dev/zero"]);
  });

  it("the libfuse driver has written zeros put, and no range of any kind", async () => {
    const create = ["create", "--size", "1GiB", "--fuse-driver", "libfuse"];
    const place = await rig.mount(create, "libfuse");
    const file = `${place}/volume.img`;
    await must("dd", [
      "if=/dev/zero",
      "bs=512k",
      "seek=3",
      "count=2",
      `of=${file}`,
      "conv=notrunc",
    ]);
    for (const how of ["-p", "-z"]) {
      expect((await fallocate(file, how, 0, 4)).stderr).toMatch(/unsupported|not supported/);
    }
    const snapshot = (await rig.must(["unmount", place])).trim();
    expect(await blocksOf(rig, snapshot)).toEqual([3, 4]);
    const wrong = await rig.run([...create, "--discard=holes", place]);
    expect(wrong).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/libfuse driver cannot/),
    });
  });
});
