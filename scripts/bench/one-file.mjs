/**
 * One file out of a snapshot, as a user recovers it: mount, loop device, ext4, cp. The volume is
 * 100 GiB of which 40 GiB are written: a synthetic snapshot, on which ebsmount itself has made a file
 * system and a tree of real files. The peer is what there was before: the full copy, whose time comes
 * from the rate at which `ebsmount export` fetches the same snapshot.
 */
import { spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startEndpoint } from "./lib/endpoint.mjs";
import { interleave, median, report, rowOf, seconds } from "./lib/report.mjs";
import {
  attachLoop,
  BLOCK_SIZE,
  CLI,
  env,
  MIB,
  mount,
  mountFileSystem,
  must,
  scratch,
} from "./lib/rig.mjs";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const LATENCY_MS = 30;
const FILE_MIB = 10;
const WRITTEN_GIB = 40;

const endpoint = await startEndpoint({ synthetic: ["size=100GiB,written=0.4,seed=5"] });
const wanted = join(scratch, "wanted");
writeFileSync(wanted, randomFillSync(Buffer.alloc(FILE_MIB * MIB)));
const snapshot = makeFileSystem(endpoint.snapshots[0]);
await endpoint.setLatency(LATENCY_MS);

/** @returns the id of a snapshot with an ext4 of a few thousand files, and the wanted one among them. */
function makeFileSystem(base) {
  const { image, unmount } = mount(base, "--rw");
  const { loop, detach } = attachLoop(image);
  // Without discards: what was written stays written, as on a volume that has been in use.
  must("mkfs.ext4", ["-q", "-E", "nodiscard", loop]);
  const disk = mountFileSystem(loop);
  must("cp", ["-r", "/usr/share/doc", "/usr/share/locale", disk.place]);
  mkdirSync(join(disk.place, "home/user"), { recursive: true });
  must("cp", [wanted, join(disk.place, "home/user/wanted")]);
  must("cp", ["-r", "/usr/share/zoneinfo", disk.place]);
  disk.unmount();
  detach();
  return unmount();
}

const fetched = [];
async function recover() {
  await endpoint.resetStats();
  const undo = [];
  const time = await seconds(() => {
    const mounted = mount(snapshot);
    const { loop, detach } = attachLoop(mounted.image, "-r");
    const disk = mountFileSystem(loop, "-o", "ro,noload");
    undo.push(disk.unmount, detach, mounted.unmount);
    must("cp", [join(disk.place, "home/user/wanted"), join(scratch, "found")]);
  });
  const { calls } = (await endpoint.stats()).GetSnapshotBlock;
  fetched.push((calls * BLOCK_SIZE) / (FILE_MIB * MIB));
  must("cmp", [wanted, join(scratch, "found")]);
  for (const action of undo) action();
  return time;
}

/** Seconds that a full export would take, from the blocks that a part of one gets in a second. */
async function estimateExport() {
  const target = join(scratch, "part.img");
  const child = spawn(process.execPath, [CLI, "export", snapshot, target], {
    env,
    stdio: "ignore",
  });
  const gets = async () => (await endpoint.stats()).GetSnapshotBlock.calls;
  await sleep(1500);
  const before = await gets();
  const start = performance.now();
  await sleep(4000);
  const perSecond = ((await gets()) - before) / ((performance.now() - start) / 1000);
  child.kill("SIGINT");
  await once(child, "exit");
  rmSync(target, { force: true });
  return (WRITTEN_GIB * 1024 * MIB) / BLOCK_SIZE / perSecond;
}

const times = await interleave(ROUNDS, { ours: recover });
const whole = await interleave(1, { export: estimateExport });
const what = `a ${FILE_MIB} MiB file out of ext4, 100 GiB with ${WRITTEN_GIB} GiB written, cold, ${LATENCY_MS} ms`;
report("one-file", [
  rowOf({
    what,
    unit: "s",
    ours: times.ours,
    peer: times.ours.map(() => median(whole.export)),
    peerName: "full export, estimated",
    maxFigure: 3,
    inReadme: true,
  }),
  rowOf({ what: `${what}: fetched`, unit: "× the file", ours: fetched, maxFigure: 4 }),
]);
