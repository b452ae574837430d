/**
 * The disk cache end to end: what one mount has fetched the next one reads from the folder; others
 * do not; blocks that a later snapshot of the lineage shares are fetched once; and whatever happens
 * to the folder, reads give the right bytes.
 */
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BLOCK_SIZE, MIB } from "../../src/common/sizes.js";
import type { MountStatus } from "../../src/mount/mount-status.js";
import { Rig } from "../support/rig.js";
import { must, until } from "../support/scratch.js";

const SIZE = 1024 * MIB;
/** Written blocks of the first image. */
const BLOCKS = 40;
let rig: Rig;
let image: string;
let changedImage: string;
let snapshot: string;
let child: string;
let mounts = 0;

interface Counted {
  readonly gets: number;
  readonly comparisons: number;
}

function counts(): Counted {
  const { operations } = rig.endpoint.stats();
  return {
    gets: operations.GetSnapshotBlock.calls,
    comparisons: operations.ListChangedBlocks.calls,
  };
}

async function counted(work: () => Promise<void>): Promise<Counted> {
  const before = counts();
  await work();
  const now = counts();
  return {
    gets: now.gets - before.gets,
    comparisons: now.comparisons - before.comparisons,
  };
}

interface Look {
  readonly args?: readonly string[];
  readonly env?: Record<string, string>;
  /** With the mount there, before and after it is compared with the image. */
  readonly before?: (file: string) => Promise<void>;
  readonly after?: () => Promise<void>;
}

/** Mounts, compares all that is written and holes around it with the image, unmounts. */
async function look(of: string, with_: string, folder: string, more: Look = {}): Promise<string> {
  mounts += 1;
  const log = rig.scratch.file(`log-${mounts}`);
  const place = await rig.mount(
    ["mount", of, "--cache-dir", folder, "--log-file", log, ...(more.args ?? [])],
    `mnt-${mounts}`,
    more.env,
  );
  await more.before?.(join(place, `${of}.img`));
  for (const at of [0, 290, 590]) {
    const file = join(place, `${of}.img`);
    await must("cmp", ["-i", String(at * MIB), "-n", String(20 * MIB), with_, file]);
  }
  await more.after?.();
  await rig.must(["unmount", place]);
  return readFileSync(log, "utf8");
}

function newFolder(): string {
  mounts += 1;
  return rig.scratch.file(`cache-${mounts}`);
}

function warnings(log: string): number {
  return log.split("\n").filter((line) => line.includes("cache folder")).length;
}

beforeAll(async () => {
  rig = await Rig.start();
  const half = (BLOCKS / 2) * BLOCK_SIZE;
  image = await rig.image("disk.img", SIZE, [0, half], [600 * MIB, half]);
  snapshot = await rig.import(image);
  changedImage = rig.scratch.file("disk2.img");
  // Not copyFile, which writes the zeros of the holes: then they would be data.
  await must("cp", ["--sparse=always", image, changedImage]);
  const changed = await open(changedImage, "r+");
  // Three blocks changed, one new.
  await changed.write(randomBytes(2 * BLOCK_SIZE), 0, undefined, 3 * BLOCK_SIZE);
  await changed.write(randomBytes(10), 0, undefined, 600 * MIB + 77);
  await changed.write(randomBytes(10), 0, undefined, 300 * MIB);
  await changed.close();
  child = await rig.import(changedImage, "--parent", snapshot);
});
afterAll(() => rig.clean());

describe("the folder", () => {
  it("serves a second mount without one fetch", async () => {
    const folder = newFolder();
    expect((await counted(async () => void (await look(snapshot, image, folder)))).gets).toBe(
      BLOCKS,
    );
    let disk: MountStatus["disk"];
    const again = await counted(async () => {
      await look(snapshot, image, folder, {
        after: async () => {
          const { mounts: all } = JSON.parse(await rig.must(["status", "--json"])) as {
            mounts: { status?: MountStatus }[];
          };
          disk = all[0]?.status?.disk;
        },
      });
    });
    expect(again.gets).toBe(0);
    expect(disk?.hits).toBe(BLOCKS);
    expect((await must("stat", ["-c", "%a", folder])).trim()).toBe("700");
    for (const name of readdirSync(folder)) {
      const mode = (await must("stat", ["-c", "%a", join(folder, name)])).trim();
      expect(mode).toMatch(/^[67]00$/);
    }
  });

  it("is shared by mounts that live at the same time", async () => {
    const folder = newFolder();
    const all = await counted(async () => {
      await look(snapshot, image, folder, {
        after: async () => void (await look(snapshot, image, folder)),
      });
    });
    // The first mount may still be writing its last blocks when the second reads.
    expect(all.gets).toBeLessThan(BLOCKS + 10);
  });

  it("does not share with other credentials, nor with another region", async () => {
    const folder = newFolder();
    await look(snapshot, image, folder);
    for (const env of [
      { AWS_ACCESS_KEY_ID: "other" },
      { AWS_ACCOUNT_ID: "123456789012" },
      { EBSMOUNT_REGION: "eu-central-1" },
    ] as Record<string, string>[]) {
      const { gets } = await counted(async () => {
        await look(snapshot, image, folder, { env });
      });
      expect(gets, JSON.stringify(env)).toBe(BLOCKS);
    }
    const { gets } = await counted(async () => void (await look(snapshot, image, folder)));
    expect(gets).toBe(0);
  });

  it("gives a child what it shares with its parent, and the other way round", async () => {
    const folder = newFolder();
    await look(snapshot, image, folder);
    const first = await counted(async () => void (await look(child, changedImage, folder)));
    expect(first).toEqual({ gets: 4, comparisons: 1 });
    rmSync(folder, { recursive: true });
    await look(child, changedImage, folder);
    const second = await counted(async () => void (await look(snapshot, image, folder)));
    expect(second.gets).toBe(3);
  });

  it("asks once about an unrelated snapshot, and then no more", async () => {
    const folder = newFolder();
    const stranger = await rig.import(image);
    await look(snapshot, image, folder);
    const found = await counted(async () => void (await look(stranger, image, folder)));
    expect(found).toEqual({ gets: BLOCKS, comparisons: 1 });
  });

  it("serves writable mounts, and what they commit is right", async () => {
    const folder = newFolder();
    await look(snapshot, image, folder);
    mounts += 1;
    const args = ["mount", "--rw", snapshot, "--cache-dir", folder];
    const place = await rig.mount(args, `mnt-${mounts}`);
    const written = await open(join(place, `${snapshot}.img`), "r+");
    await written.write(Buffer.from("written"), 0, 7, 5 * BLOCK_SIZE + 100);
    await written.close();
    let made = "";
    const { gets } = await counted(async () => {
      made = (await rig.must(["unmount", place])).trim();
    });
    expect(gets).toBe(0);
    const expected = rig.scratch.file("written.img");
    copyFileSync(image, expected);
    const file = await open(expected, "r+");
    await file.write(Buffer.from("written"), 0, 7, 5 * BLOCK_SIZE + 100);
    await file.close();
    const shared = await counted(async () => void (await look(made, expected, folder)));
    expect(shared).toEqual({ gets: 1, comparisons: 1 });
  });
});

describe("a folder that is not ours alone", () => {
  it("is refused, and nothing is mounted", async () => {
    const folder = newFolder();
    mkdirSync(folder, { mode: 0o700 });
    const place = rig.scratch.file("refused");
    mkdirSync(place);
    const refused = async () => {
      const { status, stderr } = await rig.run(["mount", snapshot, place, "--cache-dir", folder]);
      expect(status).toBe(1);
      expect(readdirSync(folder)).toEqual([]);
      return stderr;
    };
    chmodSync(folder, 0o750);
    expect(await refused()).toContain("open to others");
    chmodSync(folder, 0o700);
    chownSync(folder, 1000, 1000);
    expect(await refused()).toContain("another user");
  });
});

describe("a folder in trouble costs fetches, never a byte", () => {
  it("full", async () => {
    const folder = newFolder();
    mkdirSync(folder);
    await must("mount", ["-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", folder]);
    try {
      const log = await look(snapshot, image, folder);
      expect(warnings(log)).toBe(1);
      expect(log).toContain("takes no new blocks");
      const again = await counted(async () => void (await look(snapshot, image, folder)));
      expect(again.gets).toBeLessThan(BLOCKS);
      expect(again.gets).toBeGreaterThan(BLOCKS / 2);
    } finally {
      await must("umount", ["-l", folder]);
    }
  });

  it("read-only, from the start and later", async () => {
    const folder = newFolder();
    mkdirSync(folder);
    await must("mount", ["-t", "tmpfs", "-o", "mode=0700", "tmpfs", folder]);
    try {
      await look(snapshot, image, folder);
      await must("mount", ["-o", "remount,ro", folder]);
      const again = await counted(async () => {
        expect(warnings(await look(snapshot, image, folder))).toBe(1);
      });
      expect(again.gets).toBe(0);
      expect(warnings(await look(child, changedImage, folder))).toBe(1);
    } finally {
      await must("umount", ["-l", folder]);
    }
    const empty = newFolder();
    mkdirSync(empty);
    await must("mount", ["-t", "tmpfs", "-o", "ro,mode=0700", "tmpfs", empty]);
    try {
      expect(warnings(await look(snapshot, image, empty))).toBe(1);
    } finally {
      await must("umount", ["-l", empty]);
    }
  });

  it("removed while in use", async () => {
    const folder = newFolder();
    const log = await look(snapshot, image, folder, {
      before: async (file) => {
        await must("head", ["-c", "1000000", file]);
        await until("the files are there", () => existsSync(folder));
        rmSync(folder, { recursive: true });
        await new Promise((resolve) => setTimeout(resolve, 1_100));
      },
    });
    expect(warnings(log)).toBe(1);
    expect(existsSync(folder)).toBe(false);
  });

  it("truncated and scribbled over", async () => {
    const folder = newFolder();
    // One set of 64 slots, of which each loses a byte.
    const args = ["--cache-dir-size", "33MiB"];
    await look(snapshot, image, folder, { args });
    const files = readdirSync(folder)
      .filter((name) => /^ebsmount-(blocks|index)/.test(name))
      .map((name) => join(folder, name));
    expect(files).toHaveLength(2);
    const blocks = await open(files.find((name) => name.includes("blocks")) as string, "r+");
    const byte = Buffer.alloc(1);
    for (let slot = 0; slot < 64; slot += 1) {
      const at = slot * BLOCK_SIZE + Math.floor(Math.random() * BLOCK_SIZE);
      const { bytesRead } = await blocks.read(byte, 0, 1, at);
      byte[0] = (byte[0] as number) ^ 0x10;
      if (bytesRead === 1) await blocks.write(byte, 0, 1, at);
    }
    await blocks.close();
    const scribbled = await counted(async () => {
      expect(warnings(await look(snapshot, image, folder, { args }))).toBe(1);
    });
    expect(scribbled.gets).toBe(BLOCKS);
    for (const name of files) truncateSync(name, 12_345);
    await look(snapshot, image, folder, { args });
    for (const name of files) truncateSync(name, 0);
    await look(snapshot, image, folder, { args });
  });
});
