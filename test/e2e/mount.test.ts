/**
 * Snapshots mounted for real and read with ordinary tools, on both drivers. The image's content is a
 * plain file beside it: whatever a tool reads through the mount must be what that file says.
 */
import { createHash } from "node:crypto";
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MIB } from "../../src/common/sizes.js";
import type { FaultAction } from "../../src/server/fault-table.js";
import { Rig } from "../support/rig.js";
import { CLI, must, run, until } from "../support/scratch.js";

const SIZE = 1024 * MIB;
let rig: Rig;
let image: string;
let snapshot: string;

async function digest(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path, { highWaterMark: MIB })) hash.update(chunk);
  return hash.digest("hex");
}

beforeAll(async () => {
  rig = await Rig.start();
  // Data at the start, at odd places and at the very end, holes between.
  image = await rig.image(
    "disk.img",
    SIZE,
    [0, 5 * MIB + 777],
    [100 * MIB + 12_345, 3 * MIB],
    [300 * MIB, 40 * MIB],
    [SIZE - 1, 1],
  );
  snapshot = await rig.import(image);
});
afterAll(() => rig.clean());

describe.each(["kernel", "libfuse"])("a mount by the %s driver", (driver) => {
  let place: string;
  let file: string;
  beforeAll(async () => {
    place = await rig.mount(["mount", "--fuse-driver", driver, snapshot], driver);
    file = join(place, `${snapshot}.img`);
  });
  afterAll(async () => {
    await rig.must(["unmount", place]);
  });

  it("shows one image, exactly as large as the volume, read-only", async () => {
    expect((await must("ls", [place])).trim()).toBe(`${snapshot}.img`);
    expect((await must("stat", ["-c", "%s", file])).trim()).toBe(String(SIZE));
    const write = await run("dd", [
      "if=/dev/zero",
      `of=${file}`,
      "bs=512",
      "count=1",
      "conv=notrunc",
    ]);
    expect(write.status).not.toBe(0);
    expect(write.stderr).toMatch(/Read-only file system|Permission denied/);
  });

  it("gives every byte, as cmp and dd see it", async () => {
    await must("cmp", [image, file]);
    for (const [bs, skip, count] of [
      ["512", 0, 40],
      ["777", 6700, 301],
      ["4097", 25_600, 64],
      ["1000003", 299, 45],
      ["3M", 99, 3],
    ] as const) {
      const args = [`bs=${bs}`, `skip=${skip}`, `count=${count}`, "status=none"];
      await must("sh", [
        "-c",
        `dd if="$1" ${args.join(" ")} > "$3.a" && dd if="$2" ${args.join(" ")} > "$3.b" && cmp "$3.a" "$3.b"`,
        "sh",
        image,
        file,
        rig.scratch.file("dd"),
      ]);
    }
  });

  it("gives parallel random readers the right bytes", async () => {
    const readers = Array.from({ length: 6 }, async () => {
      const [a, b] = await Promise.all([open(image, "r"), open(file, "r")]);
      for (let i = 0; i < 60; i += 1) {
        const length = 1 + Math.floor(Math.random() * MIB);
        const offset = Math.floor(Math.random() * (360 * MIB));
        const [want, got] = [Buffer.alloc(length), Buffer.alloc(length)];
        await a.read(want, 0, length, offset);
        const { bytesRead } = await b.read(got, 0, length, offset);
        expect(bytesRead).toBe(length);
        expect(got.equals(want)).toBe(true);
      }
      await Promise.all([a.close(), b.close()]);
    });
    await Promise.all(readers);
  });

  it("converts with qemu-img", async () => {
    const out = rig.scratch.file(`${driver}.qcow2`);
    await must("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", file, out]);
    await must("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", image, out]);
  });

  it("attaches to a loop device", async () => {
    const loop = (await must("losetup", ["-f", "--show", "-r", file])).trim();
    try {
      await must("cmp", ["-n", String(6 * MIB), image, loop]);
    } finally {
      await must("losetup", ["-d", loop]);
    }
  });

  it("is in the status, with what it has cost", async () => {
    const { mounts } = JSON.parse(await rig.must(["status", "--json"]));
    const mine = mounts.find((entry: { mountPoint: string }) => entry.mountPoint === place);
    expect(mine).toMatchObject({ state: "live", driver, mode: "ro", snapshots: [snapshot] });
    expect(mine.status.service.bytesFetched).toBeGreaterThan(40 * MIB);
    expect(mine.status.service.estimatedCostUsd).toBeGreaterThan(0);
    expect(await rig.must(["status"])).toContain(place);
  });
});

describe("a mount", () => {
  it("costs one list call and fetches only what is read", async () => {
    rig.endpoint.resetStats();
    const place = await rig.mount(["mount", snapshot], "lazy");
    await must("stat", [join(place, `${snapshot}.img`)]);
    const { operations } = rig.endpoint.stats();
    expect(operations.ListSnapshotBlocks.calls).toBe(1);
    expect(operations.GetSnapshotBlock.calls).toBe(0);
    await must("dd", [
      `if=${place}/${snapshot}.img`,
      "of=/dev/null",
      "bs=4096",
      "count=1",
      "skip=25700",
      "iflag=direct",
    ]);
    expect(rig.endpoint.stats().operations.GetSnapshotBlock.calls).toBe(1);
    await rig.must(["unmount", place]);
  });

  it("tells tools where the holes are", async () => {
    const place = await rig.mount(["mount", snapshot], "holes");
    const map = JSON.parse(
      await must("qemu-img", ["map", "-f", "raw", "--output=json", `${place}/${snapshot}.img`]),
    ) as { start: number; length: number; data: boolean }[];
    const data = map.filter((extent) => extent.data).reduce((sum, { length }) => sum + length, 0);
    expect(data).toBeGreaterThanOrEqual(48 * MIB);
    expect(data).toBeLessThan(52 * MIB);
    await must("cp", ["--sparse=always", `${place}/${snapshot}.img`, rig.scratch.file("copy.img")]);
    await must("cmp", [image, rig.scratch.file("copy.img")]);
    await rig.must(["unmount", place]);
  });

  it("shows several snapshots side by side", async () => {
    const other = await rig.import(image, "--description", "again");
    const place = await rig.mount(["mount", snapshot, other], "two");
    expect((await must("ls", [place])).trim().split("\n").sort()).toEqual(
      [`${snapshot}.img`, `${other}.img`].sort(),
    );
    await must("cmp", [`${place}/${snapshot}.img`, `${place}/${other}.img`]);
    await rig.must(["unmount", place]);
  });

  it.each([
    ["umount", (place: string) => must("umount", [place])],
    ["fusermount3 -u", (place: string) => must("fusermount3", ["-u", place])],
    ["SIGTERM", (place: string) => signal(place, "SIGTERM")],
    ["SIGINT", (place: string) => signal(place, "SIGINT")],
  ])("ends by %s and leaves nothing behind", async (_, end) => {
    const place = await rig.mount(["mount", snapshot], "ends");
    const { pid } = await entryOf(place);
    await end(place);
    await until("the process has ended", () => !existsSync(`/proc/${pid}`));
    expect(readdirSync(rig.scratch.file("state/mounts"))).toEqual([]);
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(place);
  });

  it("says that it is busy, and stays", async () => {
    const place = await rig.mount(["mount", snapshot], "busy");
    const held = await open(`${place}/${snapshot}.img`, "r");
    try {
      const { status, stderr } = await rig.run(["unmount", place]);
      expect(status).toBe(1);
      expect(stderr).toMatch(/in use|busy/);
      await must("cmp", ["-n", "5000", image, `${place}/${snapshot}.img`]);
    } finally {
      await held.close();
    }
    await rig.must(["unmount", place]);
  });

  it("shows a dead process as stale, and unmount clears it", async () => {
    const place = await rig.mount(["mount", snapshot], "stale");
    const { pid } = await entryOf(place);
    process.kill(pid, "SIGKILL");
    await until("the process is gone", () => !existsSync(`/proc/${pid}`));
    expect(await rig.must(["status"])).toMatch(/stale/);
    const again = await rig.run(["mount", snapshot, place]);
    expect(again.status).toBe(1);
    expect(again.stderr).toContain(`ebsmount unmount ${place}`);
    await rig.must(["unmount", place]);
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(place);
  });

  it("is found through symbolic links, also by a link to the mount point itself", async () => {
    const real = rig.scratch.file("real");
    mkdirSync(`${real}/mnt`, { recursive: true });
    symlinkSync(real, rig.scratch.file("parent"));
    symlinkSync(`${real}/mnt`, rig.scratch.file("link"));
    await rig.mount(["mount", "--scratch", snapshot], "link");
    const { mounts } = JSON.parse(await rig.must(["status", "--json"]));
    const here = mounts.filter((one: { source: string }) => one.source === snapshot);
    expect(here).toMatchObject([{ state: "live", mountPoint: `${real}/mnt` }]);
    process.kill(here[0].pid, "SIGKILL");
    await until("it is stale", async () => (await rig.must(["status"])).includes("stale"));
    expect((await rig.run(["unmount", rig.scratch.file("link")])).stderr).toMatch(/cleared/);
    await rig.mount(["mount", snapshot], "real/mnt");
    await rig.must(["unmount", `${rig.scratch.file("parent")}/mnt`]);
  });

  it("that is not in this state folder is unmounted, and that is said", async () => {
    const place = await rig.mount(["mount", "--scratch", snapshot], "elsewhere");
    const other = { EBSMOUNT_STATE_DIR: rig.scratch.file("other-state") };
    const { status, stderr } = await rig.run(["unmount", place], { env: other });
    expect(status).toBe(1);
    expect(stderr).toMatch(/is unmounted, but it was not mounted with the state folder/);
  });

  it("stays in front with -f until Ctrl-C", async () => {
    const place = rig.scratch.file("front");
    mkdirSync(place);
    const done = rig.run(["mount", "-f", snapshot, place]);
    const pid = await until("it is mounted", async () => (await statusOf(place))?.pid);
    await must("cmp", ["-n", "70000", image, `${place}/${snapshot}.img`]);
    process.kill(pid, "SIGINT");
    expect((await done).status).toBe(0);
  });

  it("takes uid, gid, umask and default modes", async () => {
    const place = await rig.mount(
      ["mount", "-o", "allow_other,uid=1234,gid=2345,umask=027", snapshot],
      "owner",
    );
    expect((await must("stat", ["-c", "%u %g %a", `${place}/${snapshot}.img`])).trim()).toMatch(
      /^1234 2345 (440|640)$/,
    );
    await rig.must(["unmount", place]);
  });
});

async function statusOf(place: string): Promise<{ pid: number } | undefined> {
  const { mounts } = JSON.parse(await rig.must(["status", "--json"]));
  return mounts.find((entry: { mountPoint: string }) => entry.mountPoint === place);
}

async function entryOf(place: string): Promise<{ pid: number }> {
  const entry = await statusOf(place);
  if (entry === undefined) throw new Error(`${place} is not in the status`);
  return entry;
}

async function signal(place: string, name: NodeJS.Signals): Promise<void> {
  process.kill((await entryOf(place)).pid, name);
}

describe("bad input gets one sentence and a status", () => {
  it.each([
    ["a wrong id", ["mount", "snap-xyz", "/mnt"], /not a snapshot id/],
    ["a missing snapshot", ["mount", "snap-0000000000000dead", "MNT"], /snap-0000000000000dead/],
    ["a missing mount point", ["mount", "SNAP", "/nowhere/at/all"], /does not exist/],
    ["an empty mount point", ["mount", "SNAP", ""], /mount point is empty/],
    ["the state folder below it", ["mount", "SNAP", "ABOVE"], /holds the state folder/],
    ["a file as mount point", ["mount", "SNAP", CLI], /not a directory/],
    ["an unknown option", ["mount", "-o", "fancy", "SNAP", "MNT"], /fancy/],
    ["nothing mounted", ["unmount", "MNT"], /Nothing of ebsmount is mounted/],
    ["a bad size", ["mount", "--cache-size", "lots", "SNAP", "MNT"], /not a size/],
  ])("%s", async (_, args, sentence) => {
    const place = rig.scratch.file("bad");
    mkdirSync(place, { recursive: true });
    const meant: Record<string, string> = { SNAP: snapshot, MNT: place, ABOVE: rig.scratch.path };
    const words = args.map((word) => meant[word] ?? word);
    const { status, stderr, stdout } = await rig.run(words);
    expect(stderr).toMatch(sentence);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(status).toBeGreaterThan(0);
    expect(stdout).toBe("");
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(place);
  });

  it("an endpoint that is not there", async () => {
    const place = rig.scratch.file("bad");
    const { status, stderr } = await rig.run([
      "mount",
      "--endpoint-url",
      "http://127.0.0.1:9",
      "--io-timeout",
      "2s",
      snapshot,
      place,
    ]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/127\.0\.0\.1:9/);
  });
});

describe("with faults", () => {
  it("a checksum of the whole image is right or the read fails", async () => {
    const want = await digest(image);
    const place = await rig.mount(["mount", "--io-timeout", "60s", snapshot], "faults");
    rig.endpoint.faults.add({
      action: "error",
      status: 503,
      name: "ServiceUnavailable",
      probability: 0.1,
      seed: 1,
    });
    rig.endpoint.faults.add({
      action: "error",
      name: "RequestThrottledException",
      probability: 0.1,
      seed: 2,
    });
    rig.endpoint.faults.add({ action: "reset", probability: 0.05, seed: 3 });
    rig.endpoint.faults.add({
      action: "cut",
      operations: ["GetSnapshotBlock"],
      probability: 0.05,
      seed: 4,
    });
    rig.endpoint.faults.add({
      action: "corrupt",
      operations: ["GetSnapshotBlock"],
      probability: 0.05,
      seed: 5,
    });
    rig.endpoint.faults.add({
      action: "checksum",
      operations: ["GetSnapshotBlock"],
      probability: 0.05,
      seed: 6,
    });
    rig.endpoint.faults.add({
      action: "expired-token",
      operations: ["GetSnapshotBlock"],
      probability: 0.05,
      seed: 7,
    });
    rig.endpoint.faults.add({
      action: "empty-page",
      operations: ["ListSnapshotBlocks"],
      probability: 0.3,
      seed: 8,
    });
    rig.endpoint.faults.add({ action: "latency", ms: 1, jitterMs: 5 });
    try {
      const sum = (await must("sha256sum", [`${place}/${snapshot}.img`])).split(" ")[0];
      expect(sum).toBe(want);
    } finally {
      rig.endpoint.faults.clear();
    }
    await rig.must(["unmount", place]);
  });

  it.each<[FaultAction, string, string[], RegExp, RegExp]>([
    [
      "corrupt",
      "2s",
      [],
      /Input\/output error/,
      /EIO: GetSnapshotBlock of block 0 of snap-.*SHA-256/,
    ],
    ["hang", "3s", [], /timed out/i, /ETIMEDOUT: GetSnapshotBlock of block 0 of snap-/],
    [
      "error",
      "2s",
      ["AccessDeniedException"],
      /Permission denied/,
      /EACCES: .*ebs:GetSnapshotBlock/,
    ],
  ])("%s that does not end is an error, never data, and the log says why", async (...given) => {
    const [action, limit, [name], told, logged] = given;
    for (const driver of ["kernel", "libfuse"]) {
      const options = ["--io-timeout", limit, "--fuse-driver", driver];
      const log = rig.scratch.file(`${action}-${driver}.log`);
      const place = await rig.mount(
        ["mount", ...options, "--log-file", log, snapshot],
        `${action}-${driver}`,
      );
      const file = `${place}/${snapshot}.img`;
      rig.endpoint.faults.add({ action, operations: ["GetSnapshotBlock"], ...(name && { name }) });
      try {
        const { status, stderr } = await run("dd", [`if=${file}`, "of=/dev/null", "count=1"]);
        expect(status).not.toBe(0);
        expect(stderr).toMatch(told);
        expect(readFileSync(log, "utf8")).toMatch(logged);
      } finally {
        rig.endpoint.faults.clear();
      }
      await until("it is read again", async () => {
        const { status } = await run("cmp", ["-n", "70000", image, file]);
        return status === 0;
      });
      await rig.must(["unmount", place]);
    }
  });

  it("a read that waited for all the retries is not made to wait for them twice", async () => {
    const place = await rig.mount(["mount", "--io-timeout", "3s", snapshot], "twice");
    const file = `${place}/${snapshot}.img`;
    rig.endpoint.faults.add({ action: "hang", operations: ["GetSnapshotBlock"] });
    const attempts = async (...args: string[]) => {
      rig.endpoint.resetStats();
      expect((await run("dd", [`if=${file}`, "of=/dev/null", "count=1", ...args])).status).toBe(1);
      return rig.endpoint.stats().operations.GetSnapshotBlock.calls;
    };
    try {
      const direct = await attempts("iflag=direct");
      // Buffered, the kernel reads ahead, fails, and asks again for the page alone.
      expect(await attempts(`skip=${(300 * MIB) / 512}`)).toBeLessThanOrEqual(direct + 1);
    } finally {
      rig.endpoint.faults.clear();
    }
    await rig.must(["unmount", place]);
  });
});

describe("at 64 TiB, fully written", () => {
  it("mounts and reads at any offset with at most two list calls and one get", async () => {
    const huge = rig.endpoint.createSynthetic({ volumeSizeGiB: 65_536, written: 1, seed: 1 });
    rig.endpoint.resetStats();
    const place = await rig.mount(["mount", huge], "huge");
    const file = `${place}/${huge}.img`;
    expect((await must("stat", ["-c", "%s", file])).trim()).toBe(String(65_536 * 1024 * MIB));
    await must("dd", [
      `if=${file}`,
      "of=/dev/null",
      "bs=4096",
      "count=1",
      "skip=12345678901",
      "iflag=direct",
    ]);
    const { operations } = rig.endpoint.stats();
    expect(operations.ListSnapshotBlocks.calls).toBeLessThanOrEqual(2);
    expect(operations.GetSnapshotBlock.calls).toBe(1);
    await rig.must(["unmount", place]);
  });
});
