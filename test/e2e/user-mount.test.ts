/**
 * An ordinary user, through fusermount3. /dev/fuse may be closed to users on a test machine: it is
 * opened for these tests and put back after.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Rig } from "../support/rig.js";
import { CLI, must, type Ran, run } from "../support/scratch.js";

const USER = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];

let rig: Rig;
let snapshot: string;
let image: string;
let home: string;

/** Where the project lies in a folder that only root can enter, there is no ordinary user to be. */
const reachable = (await run("setpriv", [...USER, "test", "-r", CLI])).status === 0;

beforeAll(async () => {
  rig = await Rig.start();
  chmodSync(rig.scratch.path, 0o755);
  const { mode } = statSync("/dev/fuse");
  chmodSync("/dev/fuse", 0o666);
  rig.scratch.undo(() => chmodSync("/dev/fuse", mode));
  home = rig.scratch.file("home");
  mkdirSync(home);
  await must("chown", ["65534:65534", home]);
  image = rig.scratch.file("disk.img");
  writeFileSync(image, randomBytes(3_000_000));
  await must("truncate", ["-s", "1G", image]);
  snapshot = await rig.import(image);
});
afterAll(() => rig.clean());

function asUser(command: string, ...args: string[]): Promise<Ran> {
  return run("setpriv", [...USER, command, ...args], {
    env: { ...rig.env, HOME: home, EBSMOUNT_STATE_DIR: `${home}/state` },
  });
}
const ebsmount = (...args: string[]) => asUser(process.execPath, CLI, ...args);

describe.skipIf(!reachable)(
  `as user 65534 (skipped where ${dirname(CLI)} is closed to users)`,
  () => {
    it.each(["kernel", "libfuse"])(
      "mounts, reads, writes and unmounts (%s driver)",
      async (driver) => {
        const place = `${home}/${driver}`;
        await asUser("mkdir", place);
        const mounted = await ebsmount("mount", "--fuse-driver", driver, snapshot, place);
        expect(mounted).toMatchObject({ status: 0, stderr: "" });
        rig.scratch.undo(() => run("umount", ["-l", place]));
        expect((await asUser("cmp", image, `${place}/${snapshot}.img`)).status).toBe(0);
        expect((await ebsmount("status")).stdout).toContain(place);
        // Nobody else looks in, not even root: that is what allow_other is for.
        expect((await run("ls", [place])).status).not.toBe(0);
        expect((await ebsmount("unmount", place)).status).toBe(0);
        await ebsmount("mount", "--rw", "--fuse-driver", driver, snapshot, place);
        const write = ["if=/etc/services", `of=${place}/${snapshot}.img`, "bs=999", "conv=notrunc"];
        expect((await asUser("dd", ...write)).status).toBe(0);
        expect((await ebsmount("unmount", place)).stdout).toMatch(/^snap-[0-9a-f]+\n$/);
      },
    );

    it("is told how to allow other users, and that /dev/fuse is closed", async () => {
      const place = `${home}/refused`;
      await asUser("mkdir", place);
      if (!/^\s*user_allow_other/m.test(readFileSync("/etc/fuse.conf", "utf8"))) {
        const refused = await ebsmount("mount", "-o", "allow_other", snapshot, place);
        expect(refused.status).toBe(1);
        expect(refused.stderr).toMatch(/user_allow_other.*\/etc\/fuse\.conf/);
      }
      chmodSync("/dev/fuse", 0o600);
      const closed = await ebsmount("mount", snapshot, place);
      chmodSync("/dev/fuse", 0o666);
      expect(closed.status).toBe(1);
      expect(closed.stderr).toMatch(/\/dev\/fuse/);
    });
  },
);
