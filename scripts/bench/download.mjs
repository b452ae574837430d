/**
 * A whole snapshot into a file on the scratch disk, over TLS and over plain HTTP, from an endpoint that
 * responds after 30 ms: `ebsmount export` beside coldsnap, both as whole commands with their defaults, and
 * beside a loop over the bare SDK that throws the blocks away. ebsmount's file is on the disk when it
 * ends (fdatasync); coldsnap leaves its own to the kernel.
 */
import { rmSync } from "node:fs";
import { join } from "node:path";
import {
  bareGet,
  CONCURRENCY,
  coldsnap,
  coldsnapArgs,
  coldsnapDownload,
  exportSnapshot,
} from "./lib/contenders.mjs";
import { compareTurns, costOf, interleave, report } from "./lib/report.mjs";
import { CLI, must, mustAsync, scratch } from "./lib/rig.mjs";
import { startServices, takeTurn } from "./lib/services.mjs";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const GIB = Number(process.env.BENCH_DOWNLOAD_GIB ?? 4);
const LATENCY_MS = 30;
const BARE_BLOCKS = 1536;

const { endpoint, tls, plain } = await startServices({
  synthetic: ["size=1GiB,written=all,seed=8", `size=${GIB}GiB,written=all,seed=3`],
  latencyMs: LATENCY_MS,
});
const [small, snapshot] = endpoint.snapshots;
if (coldsnap.path !== undefined) await compareFiles();

/** Both programs write the same bytes; this also warms up what they share. */
async function compareFiles() {
  const [ours, theirs] = [join(scratch, "ours.img"), join(scratch, "theirs.img")];
  await mustAsync(process.execPath, [CLI, "export", "--endpoint-url", tls.url, small, ours]);
  await mustAsync(coldsnap.path, [
    ...coldsnapArgs(tls),
    "download",
    "--no-progress",
    small,
    theirs,
  ]);
  must("cmp", [ours, theirs]);
  for (const file of [ours, theirs]) rmSync(file);
}

const contenders = {};
for (const service of [tls, plain]) {
  const { name } = service;
  contenders[`export ${name}`] = () =>
    takeTurn(service, "export", () => exportSnapshot(service, snapshot, GIB));
  if (coldsnap.path !== undefined) {
    contenders[`coldsnap ${name}`] = () =>
      takeTurn(service, coldsnap.name, () => coldsnapDownload(service, snapshot, GIB));
  }
  contenders[`bare ${name}`] = () =>
    takeTurn(service, "bare SDK", () => bareGet(service, snapshot, 0, BARE_BLOCKS));
}
const turns = await interleave(ROUNDS, contenders);

const rows = [];
const costs = [];
const SDK = `bare SDK, ${CONCURRENCY} at a time`;
const goals = new Map([
  [tls, { rate: { minRatio: 1.1 }, cost: { maxRatio: 0.75 } }],
  [plain, { rate: { minRatio: 1.3 }, cost: { maxRatio: 0.6 }, bareRate: { minRatio: 0.95 } }],
]);
for (const [service, { rate, cost, bareRate }] of goals) {
  const what = `download of ${GIB} GiB over ${service.name}, ${LATENCY_MS} ms, with start and disk`;
  const ours = turns[`export ${service.name}`];
  const peer = turns[`coldsnap ${service.name}`];
  const bare = turns[`bare ${service.name}`];
  const inReadme = true;
  rows.push(
    ...compareTurns({
      what,
      ours,
      peer,
      peerName: coldsnap.name,
      rate: { ...rate, inReadme },
      cost: { ...cost, inReadme },
    }),
    ...compareTurns({ what, ours, peer: bare, peerName: `${SDK}, to no disk`, rate: bareRate }),
  );
  costs.push(costOf("ebsmount export", service, ours));
  if (peer !== undefined) costs.push(costOf(`${coldsnap.name} download`, service, peer));
}
report("download", rows, costs);
