/**
 * Real file systems, as users meet them: made on a loop device over a writable mount, filled, trimmed
 * and verified by fio, committed, then checked and read back from the new snapshot, read-only.
 */
import { mkdirSync } from "node:fs";
import { afterAll, beforeAll, expect, it } from "vitest";
import { Rig } from "../support/rig.js";
import { must, run } from "../support/scratch.js";

let rig: Rig;
beforeAll(async () => {
  rig = await Rig.start();
});
afterAll(() => rig.clean());

async function attach(...args: string[]): Promise<string> {
  const loop = (await must("losetup", ["-f", "--show", ...args])).trim();
  rig.scratch.undo(() => run("losetup", ["-d", loop]));
  return loop;
}

it.each([
  ["ext4", ["mkfs.ext4", "-q"], ["e2fsck", "-fn"], "noload"],
  ["xfs", ["mkfs.xfs", "-q"], ["xfs_repair", "-n"], "norecovery"],
  ["btrfs", ["mkfs.btrfs", "-q"], ["btrfs", "check", "--readonly"], "rescue=nologreplay"],
])(
  "%s lives through write, trim, commit and a read-only mount",
  async (kind, make, check, option) => {
    const place = await rig.mount(["create", "--size", "1GiB", "--discard=holes"], kind);
    const disk = rig.scratch.file(`${kind}-disk`);
    mkdirSync(disk);
    rig.scratch.undo(() => run("umount", [disk]));
    const loop = await attach(`${place}/volume.img`);
    await must(make[0] as string, [...make.slice(1), loop]);
    await must("mount", [loop, disk]);
    await must("cp", ["-r", "/usr/share/doc/util-linux", `${disk}/doc`]);
    for (const how of ["--direct=0 --end_fsync=1", "--direct=1 --fsync=32"]) {
      const jobs = "--size=16m --numjobs=2 --bs=4k-64k --blockalign=4k --rw=randwrite";
      const verify = "--verify=crc32c --do_verify=1 --verify_state_save=0";
      const args = `--name=f${how.at(9)} --directory=${disk} ${jobs} ${verify} ${how}`.split(" ");
      await must("fio", args, { limit: 60_000 });
    }
    await must("sh", [
      "-c",
      `cd ${disk} && fstrim . && find . -type f -exec sha256sum {} + > ../sums`,
    ]);
    await must("umount", [disk]);
    await must("losetup", ["-d", loop]);
    const snapshot = (await rig.must(["unmount", place])).trim();

    const again = await rig.mount(["mount", snapshot], `${kind}-again`);
    const readOnly = await attach("-r", `${again}/${snapshot}.img`);
    await must(check[0] as string, [...check.slice(1), readOnly]);
    await must("mount", ["-o", `ro,${option}`, readOnly, disk]);
    await must("sh", ["-c", `cd ${disk} && sha256sum --quiet -c ../sums`]);
    const readers = "--size=512m --numjobs=4 --bs=4k --rw=randread --io_size=2m --readonly";
    await must("fio", ["--name=r", `--filename=${again}/${snapshot}.img`, ...readers.split(" ")]);
    await must("umount", [disk]);
    await must("losetup", ["-d", readOnly]);
    await rig.must(["unmount", again]);
  },
);

it("several partitions are found by losetup or partx, and by sleuthkit", async () => {
  const image = rig.scratch.file("parts.img");
  await must("truncate", ["-s", "1G", image]);
  const table = "label: gpt\nstart=2048, size=409600\nstart=411648, size=409600\n";
  await must("sfdisk", ["-q", image], { input: table });
  const files = rig.scratch.file("files");
  mkdirSync(files);
  await must("sh", ["-c", `echo 'recovered, whole' > ${files}/lost.txt`]);
  await must("mkfs.ext4", ["-q", "-d", files, "-E", `offset=${411_648 * 512}`, image, "200M"]);
  const snapshot = await rig.import(image);
  const place = await rig.mount(["mount", snapshot], "parts");
  const file = `${place}/${snapshot}.img`;
  expect(await must("mmls", [file])).toContain("0000411648");
  const listing = await must("fls", ["-o", "411648", file]);
  const inode = /(\d+):\s*lost\.txt/.exec(listing)?.[1] as string;
  expect(await must("icat", ["-o", "411648", file, inode])).toBe("recovered, whole\n");
  const loop = await attach("-rP", file);
  await run("partx", ["-a", loop]);
  const found = await must("sh", ["-c", `ls -d /sys/class/block/${loop.slice(5)}p*`]);
  expect(found.trim().split("\n")).toHaveLength(2);
  await run("partx", ["-d", loop]);
  await must("losetup", ["-d", loop]);
  await rig.must(["unmount", place]);
});
