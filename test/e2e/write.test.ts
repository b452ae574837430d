/**
 * What is written under a mount becomes a snapshot: real file systems on loop devices, plain files
 * that get the same writes, and the service failing at every step of the commit.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { open } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MIB } from "../../src/common/sizes.js";
import { startEndpoint } from "../../src/server/endpoint.js";
import { Rig } from "../support/rig.js";
import { must, run, until } from "../support/scratch.js";

const SIZE = 1024 * MIB;
let rig: Rig;
let image: string;
let parent: string;

beforeAll(async () => {
  rig = await Rig.start();
  image = await rig.image("base.img", SIZE, [0, 8 * MIB], [500 * MIB, 4 * MIB]);
  parent = await rig.import(image);
});
afterAll(() => rig.clean());

function pendingSnapshots(): number {
  return rig.endpoint.stats().snapshots.filter(({ status }) => status === "pending").length;
}

async function sameAsModel(snapshot: string, model: string): Promise<void> {
  const out = rig.scratch.file(`${snapshot}.out`);
  await rig.must(["export", "--force", snapshot, out]);
  await must("cmp", [model, out]);
}

/** The same random writes, of any alignment, to both files. */
async function writeBoth(mounted: string, model: string, count: number): Promise<void> {
  const [a, b] = await Promise.all([open(mounted, "r+"), open(model, "r+")]);
  for (let i = 0; i < count; i += 1) {
    const data = randomBytes(1 + Math.floor(Math.random() * 200_000));
    const offset = Math.floor(Math.random() * (520 * MIB));
    await a.write(data, 0, data.length, offset);
    await b.write(data, 0, data.length, offset);
    const back = Buffer.alloc(data.length);
    await a.read(back, 0, back.length, offset);
    expect(back.equals(data)).toBe(true);
  }
  await a.sync();
  await Promise.all([a.close(), b.close()]);
}

describe.each(["kernel", "libfuse"])("a read-write mount by the %s driver", (driver) => {
  it("becomes a snapshot that is, byte for byte, what was written", async () => {
    const model = rig.scratch.file(`${driver}.model`);
    await must("cp", [image, model]);
    const place = await rig.mount(
      ["mount", "--rw", "--fuse-driver", driver, parent],
      `rw-${driver}`,
    );
    await writeBoth(`${place}/${parent}.img`, model, 150);
    await must("cmp", [model, `${place}/${parent}.img`]);
    const snapshot = (await rig.must(["unmount", place])).trim();
    expect(snapshot).toMatch(/^snap-[0-9a-f]+$/);
    await sameAsModel(snapshot, model);
    await sameAsModel(parent, image);
    expect(JSON.parse(await rig.must(["sessions", "--json"])).sessions).toEqual([]);
  });
});

describe.each(["kernel", "libfuse"])(
  "a mount by the %s driver that is detached in use",
  (driver) => {
    it.each(["unmount --lazy", "umount -l", "SIGTERM"])(
      "by %s goes on until the last file is closed, and then commits all of it",
      async (how) => {
        const model = rig.scratch.file("detached.model");
        await must("cp", [image, model]);
        const options = ["mount", "--rw", "--fuse-driver", driver];
        const place = await rig.mount([...options, parent], `detached-${driver}`);
        const { mounts } = JSON.parse(await rig.must(["status", "--json"]));
        const { pid, session } = mounts.find(
          (one: { mountPoint: string }) => one.mountPoint === place,
        );
        const held = await open(`${place}/${parent}.img`, "r+");
        const data = randomBytes(100_000);
        let ended: Promise<unknown>;
        try {
          if (how === "SIGTERM") process.kill(pid, "SIGTERM");
          if (how === "umount -l") await must("umount", ["-l", place]);
          ended =
            how === "unmount --lazy" ? rig.must(["unmount", "--lazy", place]) : Promise.resolve();
          await until("it is detached", async () => {
            const { stdout } = await run("findmnt", ["-n", "-M", place]);
            return stdout === "";
          });
          // Longer than a driver needs to notice that.
          await new Promise((resolve) => setTimeout(resolve, 600));
          await held.write(data, 0, data.length, 7 * MIB + 11);
          const back = Buffer.alloc(data.length);
          await held.read(back, 0, back.length, 7 * MIB + 11);
          expect(back.equals(data)).toBe(true);
          await held.sync();
        } finally {
          await held.close();
        }
        await ended;
        await until("the process has ended", () => !existsSync(`/proc/${pid}`));
        const snapshot = (await rig.must(["commit", session])).trim();
        const file = await open(model, "r+");
        await file.write(data, 0, data.length, 7 * MIB + 11);
        await file.close();
        await sameAsModel(snapshot, model);
      },
    );
  },
);

describe("a read-write mount", () => {
  it("makes no snapshot where nothing was written, and says so", async () => {
    const place = await rig.mount(["mount", "--rw", parent], "idle");
    const { stdout, stderr, status } = await rig.run(["unmount", place]);
    expect(status).toBe(0);
    expect(stdout).toBe("");
    expect(stderr).toMatch(/no new snapshot/);
    expect(pendingSnapshots()).toBe(0);
  });

  it("uploads quiet blocks while mounted, and again when they change", async () => {
    const model = rig.scratch.file("quiet.model");
    await must("cp", [image, model]);
    const place = await rig.mount(["mount", "--rw", "--writeback-delay", "200ms", parent], "quiet");
    rig.endpoint.resetStats();
    await writeBoth(`${place}/${parent}.img`, model, 20);
    await until("blocks are put", () => rig.endpoint.stats().operations.PutSnapshotBlock.calls > 5);
    await writeBoth(`${place}/${parent}.img`, model, 20);
    const snapshot = (await rig.must(["unmount", place])).trim();
    await sameAsModel(snapshot, model);
  });

  it("takes a file system on a loop device through write, discard, commit and fsck", async () => {
    const place = await rig.mount(["create", "--size", "1GiB", "--discard=holes"], "blank");
    const file = `${place}/volume.img`;
    const disk = rig.scratch.file("disk");
    mkdirSync(disk);
    const loop = (await must("losetup", ["-f", "--show", file])).trim();
    rig.scratch.undo(() => run("losetup", ["-d", loop]));
    await must("mkfs.ext4", ["-q", loop]);
    await must("mount", [loop, disk]);
    rig.scratch.undo(() => run("umount", [disk]));
    await must("sh", [
      "-c",
      'cp -r /usr/share/doc/util-linux "$1/doc"; echo hello > "$1/hello"; sync',
      "sh",
      disk,
    ]);
    await must("fstrim", [disk]);
    await must("umount", [disk]);
    await must("losetup", ["-d", loop]);
    const snapshot = (await rig.must(["unmount", place], { limit: 120_000 })).trim();
    const out = rig.scratch.file("blank.img");
    await rig.must(["export", "--force", snapshot, out]);
    await must("e2fsck", ["-fn", out]);
    await must("mount", ["-o", "loop,ro,noload", out, disk]);
    try {
      await must("diff", ["-r", "/usr/share/doc/util-linux", `${disk}/doc`]);
    } finally {
      await must("umount", [disk]);
    }
  });

  it.each(["umount", "SIGTERM"])(
    "commits on a plain %s as well, and the snapshot's id can be asked for while and after",
    async (end) => {
      const place = await rig.mount(["mount", "--rw", parent], `plain-${end}`);
      const status = async () => JSON.parse(await rig.must(["status", "--json"]));
      const entry = async () =>
        (await status()).mounts.find((one: { mountPoint: string }) => one.mountPoint === place);
      const mounted = await entry();
      await must("dd", [
        "if=/dev/urandom",
        `of=${place}/${parent}.img`,
        "bs=4k",
        "count=3",
        "conv=notrunc",
        "status=none",
      ]);
      rig.endpoint.faults.add({
        action: "latency",
        operations: ["CompleteSnapshot"],
        ms: 2_000,
        count: 1,
      });
      if (end === "umount") await must("umount", [place]);
      else process.kill(mounted.pid, "SIGTERM");
      const during = await until("status tells what it becomes", async () => {
        const now = await entry();
        return now?.state === "ending" && now.status?.becoming;
      });
      await until("the process is gone", async () => (await entry()) === undefined);
      rig.endpoint.faults.clear();
      const { finished } = await status();
      expect(finished.at(-1)).toMatchObject({
        id: mounted.session,
        mountPoint: place,
        state: "committed",
        resultSnapshotId: during,
      });
      expect(await rig.must(["sessions", "--all"])).toContain(`became ${during}`);
      expect((await rig.must(["commit", mounted.session])).trim()).toBe(during);
      expect(pendingSnapshots()).toBe(0);
      const refused = await rig.run(["mount", "--resume", mounted.session, place]);
      expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining(during) });
    },
  );

  it("grows the volume, and throws a scratch one away", async () => {
    const grown = await rig.mount(["mount", "--rw", "--size", "2GiB", parent], "grown");
    await must("dd", [
      "if=/dev/urandom",
      `of=${grown}/${parent}.img`,
      "bs=1M",
      "seek=2047",
      "count=1",
      "conv=notrunc",
      "status=none",
    ]);
    const snapshot = (await rig.must(["unmount", grown])).trim();
    const back = await rig.mount(["mount", "--scratch", snapshot], "scratch");
    expect((await must("stat", ["-c", "%s", `${back}/${snapshot}.img`])).trim()).toBe(
      String(2 * SIZE),
    );
    await must("dd", [
      "if=/dev/zero",
      `of=${back}/${snapshot}.img`,
      "bs=1M",
      "count=1",
      "conv=notrunc",
      "status=none",
    ]);
    const { stdout, stderr } = await rig.run(["unmount", back]);
    expect(stdout).toBe("");
    expect(stderr).toMatch(/thrown away/);
    expect(JSON.parse(await rig.must(["sessions", "--json"])).sessions).toEqual([]);
  });
});

describe("a mount point that is used again while its last mount still commits", () => {
  it("is unmounted for what is mounted there now", async () => {
    const place = await rig.mount(["mount", "--rw", parent], "again");
    const write = async (seek: number) => {
      const to = [`of=${place}/${parent}.img`, "bs=4k", `seek=${seek}`, "count=1"];
      await must("dd", ["if=/dev/urandom", ...to, "conv=notrunc", "status=none"]);
    };
    await write(0);
    rig.endpoint.faults.add({ action: "latency", operations: ["CompleteSnapshot"], ms: 4_000 });
    await must("umount", [place]);
    await rig.mount(["mount", "--rw", parent], "again");
    rig.endpoint.faults.clear();
    await write(9);
    const second = (await rig.must(["unmount", place])).trim();
    const first = await until("the first is there too", async () => {
      const { finished } = JSON.parse(await rig.must(["status", "--json"]));
      const here = finished.filter((one: { mountPoint: string }) => one.mountPoint === place);
      return (
        here.length === 2 &&
        here.find((one: { resultSnapshotId: string }) => {
          return one.resultSnapshotId !== second;
        })
      );
    });
    expect(first.resultSnapshotId).toMatch(/^snap-/);
  });
});

describe("nothing is lost", () => {
  async function killedSession(
    name: string,
    model: string,
    env: Record<string, string> = {},
  ): Promise<string> {
    await must("cp", [image, model]);
    const place = await rig.mount(["mount", "--rw", parent], name, env);
    await writeBoth(`${place}/${parent}.img`, model, 30);
    const { mounts } = JSON.parse(await rig.must(["status", "--json"]));
    const entry = mounts.find((one: { mountPoint: string }) => one.mountPoint === place);
    process.kill(entry.pid, "SIGKILL");
    await until("the process is gone", () => !existsSync(`/proc/${entry.pid}`));
    expect((await rig.run(["unmount", place])).stderr).toContain(entry.session);
    return entry.session;
  }

  it("when the process is killed: commit finishes it", async () => {
    const model = rig.scratch.file("killed.model");
    const session = await killedSession("killed", model);
    expect(await rig.must(["sessions"])).toContain(session);
    const snapshot = (await rig.must(["commit", session])).trim();
    await sameAsModel(snapshot, model);
    expect(pendingSnapshots()).toBe(0);
  });

  it("when the environment has changed since: commit goes where the mount was", async () => {
    const other = await startEndpoint({ store: rig.scratch.file("other-store") });
    try {
      const model = rig.scratch.file("moved.model");
      const env = { EBSMOUNT_ENDPOINT_URL: "", AWS_ENDPOINT_URL_EBS: rig.endpoint.url };
      const session = await killedSession("moved", model, env);
      const now = { ...env, AWS_ENDPOINT_URL_EBS: other.url };
      const snapshot = (await rig.must(["commit", session], { env: now })).trim();
      await sameAsModel(snapshot, model);
      expect(other.stats().operations.total.calls).toBe(0);
    } finally {
      await other.close();
    }
  });

  it("when sent elsewhere: what has been started must be known there", async () => {
    const other = await startEndpoint({ store: rig.scratch.file("elsewhere") });
    rig.scratch.undo(() => other.close());
    const place = await rig.mount(["create", "--size", "1GiB", "--no-writeback"], "started");
    const to = [`of=${place}/volume.img`, "bs=4k", "count=1", "conv=notrunc", "status=none"];
    await must("dd", ["if=/dev/urandom", ...to]);
    rig.endpoint.faults.add({
      action: "error",
      operations: ["PutSnapshotBlock"],
      name: "AccessDeniedException",
      status: 403,
    });
    const refused = await rig.run(["unmount", place]).finally(() => rig.endpoint.faults.clear());
    const session = /ebsmount commit (\S+?)`/.exec(refused.stderr)?.[1] ?? "";
    const elsewhere = await rig.run(["commit", session], {
      env: { EBSMOUNT_ENDPOINT_URL: other.url },
    });
    expect(elsewhere).toMatchObject({ status: 1, stderr: expect.stringMatching(/does not know/) });
    expect(other.stats().snapshots).toEqual([]);
    await rig.must(["commit", session]);
    expect(pendingSnapshots()).toBe(0);
  });

  it("when the service refuses how it is described: commit describes it anew", async () => {
    const model = rig.scratch.file("described.model");
    await must("cp", [image, model]);
    const options = ["--no-writeback", "--tag", "team=a"];
    const place = await rig.mount(["mount", "--rw", ...options, parent], "described");
    await writeBoth(`${place}/${parent}.img`, model, 5);
    rig.endpoint.faults.add({
      action: "error",
      operations: ["StartSnapshot"],
      name: "ValidationException",
      status: 400,
      reason: "INVALID_TAG",
    });
    const refused = await rig.run(["unmount", place]).finally(() => rig.endpoint.faults.clear());
    const session = /ebsmount commit (\S+?)`/.exec(refused.stderr)?.[1] ?? "";
    const snapshot = (await rig.must(["commit", "--tag", "team=b", session])).trim();
    await sameAsModel(snapshot, model);
    const late = await rig.run(["commit", "--tag", "aws:team=b", session]);
    expect(late).toMatchObject({ status: 2, stderr: expect.stringMatching(/AWS's own/) });
  });

  it("when only told not to wait: the session stays until the snapshot is completed", async () => {
    const slow = await Rig.start({ completionDelayMs: 4_000 });
    try {
      const place = await slow.mount(["create", "--size", "1GiB", "--no-wait"], "slow");
      const to = [`of=${place}/volume.img`, "bs=4k", "count=1", "conv=notrunc", "status=none"];
      await must("dd", ["if=/dev/urandom", ...to]);
      const { stdout, stderr } = await slow.run(["unmount", place]);
      const session = /ebsmount commit (\S+?)`/.exec(stderr)?.[1] ?? "";
      expect(stderr).toMatch(/not completed yet/);
      expect(await slow.must(["sessions"])).toContain(session);
      expect(await slow.must(["commit", session])).toBe(stdout);
      expect(JSON.parse(await slow.must(["sessions", "--json"])).sessions).toEqual([]);
      expect(slow.endpoint.stats().snapshots).toHaveLength(1);
    } finally {
      await slow.clean();
    }
  });

  it("when the session's folder cannot be removed: the snapshot is made, and said", async () => {
    const place = await rig.mount(["mount", "--rw", parent], "stuck");
    const { mounts } = JSON.parse(await rig.must(["status", "--json"]));
    const { session } = mounts.find((one: { mountPoint: string }) => one.mountPoint === place);
    await must("dd", ["if=/dev/urandom", `of=${place}/${parent}.img`, "count=1", "conv=notrunc"]);
    const sessions = `${rig.env.EBSMOUNT_STATE_DIR}/sessions`;
    const busy = `${sessions}/${session}/busy`;
    mkdirSync(busy);
    await must("mount", ["-t", "tmpfs", "none", busy]);
    try {
      const { status, stdout } = await rig.run(["unmount", place]);
      expect(status).toBe(0);
      expect(stdout).toMatch(/^snap-[0-9a-f]+\n$/);
      expect(await rig.must(["commit", session])).toBe(stdout);
    } finally {
      const gone = readdirSync(sessions).find((name) => name.startsWith(".gone-"));
      await must("umount", [existsSync(busy) ? busy : `${sessions}/${gone}/busy`]);
    }
  });

  it("when the process is killed: --resume goes on, and the lock keeps others out", async () => {
    const model = rig.scratch.file("resumed.model");
    const session = await killedSession("crashed", model);
    const place = await rig.mount(["mount", "--resume", session], "resumed");
    const other = await rig.run(["commit", session]);
    expect(other.status).toBe(1);
    expect(other.stderr).toMatch(/in use/);
    const refused = await rig.run(["mount", "--resume", session, "--size", "9GiB", place]);
    expect(refused).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/^ebsmount: --size cannot/),
    });
    const second = rig.scratch.file("second");
    mkdirSync(second);
    const twice = await rig.run(["mount", "--resume", session, second]);
    expect(twice).toMatchObject({ status: 1, stderr: expect.stringMatching(/in use by another/) });
    await writeBoth(`${place}/${parent}.img`, model, 10);
    const snapshot = (await rig.must(["unmount", place])).trim();
    await sameAsModel(snapshot, model);
  });

  it("when the process is killed: discard throws it away, but asks", async () => {
    const session = await killedSession("dropped", rig.scratch.file("dropped.model"));
    expect((await rig.run(["discard", session])).status).toBe(1);
    await rig.must(["discard", "--yes", session]);
    expect(JSON.parse(await rig.must(["sessions", "--json"])).sessions).toEqual([]);
  });

  it("when the mount fails: there is no session, for nothing was written", async () => {
    const place = rig.scratch.file("refused");
    mkdirSync(place);
    const refused = ["mount", "--rw", "--fuse-driver", "libfuse", "-o", "strictatime"];
    const { status, stderr } = await rig.run([...refused, parent, place]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/strictatime/);
    expect(JSON.parse(await rig.must(["sessions", "--json"])).sessions).toEqual([]);
  });

  it.each(["StartSnapshot", "PutSnapshotBlock", "CompleteSnapshot"] as const)(
    "when %s loses answers, fails and hangs: one snapshot, and the right one",
    async (operation) => {
      const model = rig.scratch.file(`${operation}.model`);
      await must("cp", [image, model]);
      const place = await rig.mount(["mount", "--rw", "--no-writeback", parent], operation);
      await writeBoth(`${place}/${parent}.img`, model, 20);
      const before = rig.endpoint.stats().snapshots.length;
      for (const action of ["lost", "error", "reset"] as const) {
        rig.endpoint.faults.add({ action, operations: [operation], count: 1 });
      }
      const snapshot = (await rig.must(["unmount", place])).trim();
      rig.endpoint.faults.clear();
      await sameAsModel(snapshot, model);
      expect(rig.endpoint.stats().snapshots.length).toBe(before + 1);
    },
  );

  it("when the service is gone for the whole unmount: the session is kept and commits later", async () => {
    const model = rig.scratch.file("gone.model");
    await must("cp", [image, model]);
    const place = await rig.mount(
      ["mount", "--rw", "--io-timeout", "2s", "--no-writeback", parent],
      "gone",
    );
    await writeBoth(`${place}/${parent}.img`, model, 10);
    rig.endpoint.faults.add({ action: "reset" });
    const { status, stderr } = await rig.run(["unmount", place]);
    rig.endpoint.faults.clear();
    expect(status).toBe(1);
    const session = /ebsmount commit (\S+?)`/.exec(stderr)?.[1] ?? "";
    const snapshot = (await rig.must(["commit", session])).trim();
    await sameAsModel(snapshot, model);
    expect(pendingSnapshots()).toBe(0);
  });
});

it.each([
  [["--rw", "--tag", "a=1", "--tag", "a=2"], /--tag a is given twice/],
  [["--rw", "--tag", "aws:a=1"], /AWS's own/],
  [["--rw", "--size", "2GiB", "--kms-key-arn", "mine"], /without --encrypted and --kms-key-arn/],
  [["--scratch", "--description", "x"], /--description cannot be used here: a scratch mount/],
  [["--scratch", "--discard=holes"], /--discard cannot be used here: a scratch mount/],
  [["--discard=holes"], /--discard cannot be used here: a read-only mount/],
  [["--rw", "--discard=zeros"], /Allowed choices are refuse, holes/],
  [["--tag", "a=1"], /--tag cannot be used here: a read-only mount .* add --rw/],
])("mount %j is refused before anything is done", async (options, sentence) => {
  const place = rig.scratch.file("nothing");
  const { status, stderr } = await rig.run(["mount", ...options, parent, place]);
  expect(status).toBe(2);
  expect(stderr).toMatch(sentence);
});
