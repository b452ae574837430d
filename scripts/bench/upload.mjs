/**
 * A file, or what was written under a mount, becomes a snapshot, over TLS and over plain HTTP, at an
 * endpoint that responds after 30 ms: `ebsmount import` beside coldsnap, both as whole commands with their
 * defaults and from the same file in the page cache; and the commit of as much data on unmount, beside
 * coldsnap's upload and a loop that puts the blocks of that file by the bare SDK.
 */
import { join } from "node:path";
import {
  barePut,
  CONCURRENCY,
  coldsnap,
  coldsnapUpload,
  importFile,
  prepareCommit,
} from "./lib/contenders.mjs";
import { fillWithRandom } from "./lib/random-file.mjs";
import { compareTurns, costOf, interleave, report } from "./lib/report.mjs";
import { scratch } from "./lib/rig.mjs";
import { startServices, takeTurn } from "./lib/services.mjs";

const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const GIB = Number(process.env.BENCH_UPLOAD_GIB ?? 2);
const LATENCY_MS = 30;

const { tls, plain } = await startServices({ latencyMs: LATENCY_MS });
const file = join(scratch, "upload.img");
fillWithRandom(file, "w", GIB);

const contenders = {};
for (const service of [tls, plain]) {
  const { name } = service;
  contenders[`import ${name}`] = () =>
    takeTurn(service, "import", () => importFile(service, file, GIB));
  if (coldsnap.path !== undefined) {
    contenders[`coldsnap ${name}`] = () =>
      takeTurn(service, coldsnap.name, () => coldsnapUpload(service, file, GIB));
  }
  contenders[`commit ${name}`] = () => takeTurn(service, "commit", prepareCommit(service, GIB));
  contenders[`bare ${name}`] = () =>
    takeTurn(service, "bare SDK", () => barePut(service, file, GIB));
}
const turns = await interleave(ROUNDS, contenders);

const rows = [];
const costs = [];
const SDK = `bare SDK, ${CONCURRENCY} at a time`;
for (const service of [tls, plain]) {
  const over = `over ${service.name}, ${LATENCY_MS} ms`;
  const commitWhat = `commit of ${GIB} GiB ${over}, from unmount to its end`;
  const [ours, peer, commit, bare] = ["import", "coldsnap", "commit", "bare"].map(
    (contender) => turns[`${contender} ${service.name}`],
  );
  rows.push(
    ...compareTurns({
      what: `upload of ${GIB} GiB ${over}, with start`,
      ours,
      peer,
      peerName: coldsnap.name,
      rate: { minRatio: 1, inReadme: true },
      cost: { maxRatio: 0.85, inReadme: true },
    }),
    ...compareTurns({
      what: commitWhat,
      ours: commit,
      peer,
      peerName: `${coldsnap.name}, upload of a file`,
      rate: {},
      cost: {},
    }),
    ...compareTurns({
      what: commitWhat,
      ours: commit,
      peer: bare,
      peerName: `${SDK}, puts`,
      rate: {},
    }),
  );
  costs.push(costOf("ebsmount import", service, ours));
  costs.push(costOf("ebsmount commit", service, commit));
  if (peer !== undefined) costs.push(costOf(`${coldsnap.name} upload`, service, peer));
  costs.push(costOf(`${SDK}, puts`, service, bare));
}
report("upload", rows, costs);
