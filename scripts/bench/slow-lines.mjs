/**
 * How much of a slow line is used: import, export, a sequential reader (also beside uploads) and the commit at
 * unmount, over 4, 10 and 20 Mbit/s, with the defaults. The line is two network namespaces (scripts/slow-line); a figure is the block
 * data that crossed, as a share of the line's rate, the command's start included. Headers of Ethernet, IP
 * and TCP take 4 % of it. One round: the line's rate is exact, and nothing else uses it.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { report, rowOf, seconds } from "./lib/report.mjs";
import {
  atEnd,
  CLI,
  MIB,
  must,
  mustAsync,
  scratch,
  startProcess,
  statusOf,
  until,
} from "./lib/rig.mjs";

const SLOW_LINE = fileURLToPath(new URL("../slow-line", import.meta.url));
const RATES = (process.env.BENCH_MBIT ?? "4,10,20").split(",").map(Number);
/** Each step takes about so long, s. */
const STEP_SECONDS = Number(process.env.BENCH_STEP_SECONDS ?? 25);
const LIMIT_MS = 10 * 60_000;

const rows = [];
for (const mbit of RATES) {
  const name = `ebsbench${process.pid}-${mbit}`;
  const down = atEnd(() => must(SLOW_LINE, ["down", name]));
  must(SLOW_LINE, ["up", name, String(mbit)]);
  const log = join(scratch, `serve-${mbit}.log`);
  const serve = [CLI, "serve", "--store", join(scratch, `store-${mbit}`), "--host", "10.77.0.1"];
  const inside = (side) => `--net=/run/netns/${name}-${side}`;
  const { stop } = startProcess("nsenter", [inside("server"), process.execPath, ...serve], log);
  const url = await until("the endpoint listens", () => {
    return readFileSync(log, "utf8").match(/http:\/\/[0-9.:]+/)?.[0];
  });
  const onLine = (command, args) =>
    mustAsync("nsenter", [inside("client"), command, ...args], { limitMs: LIMIT_MS });
  const ebsmount = (...args) =>
    onLine(process.execPath, [CLI, args[0], "--endpoint-url", url, ...args.slice(1)]);
  const mib = Math.max(4, Math.round((STEP_SECONDS * mbit) / 8.4));
  const shareOf = (took) => (100 * mib * MIB * 8) / (mbit * 1e6) / took;
  const row = (what, took, minFigure = 85) =>
    rows.push(
      rowOf({
        what: `${what} of ${mib} MiB at ${mbit} Mbit/s`,
        unit: "% of the line",
        ours: [shareOf(took)],
        minFigure,
      }),
    );

  const image = join(scratch, `image-${mbit}`);
  const file = openSync(image, "w");
  writeSync(file, randomBytes(mib * MIB));
  let snapshot = "";
  const import_ = async () => {
    snapshot = (await ebsmount("import", image)).trim();
  };
  row("import", await seconds(import_));
  const copy = join(scratch, `copy-${mbit}`);
  row("export", await seconds(() => ebsmount("export", snapshot, copy)));
  const place = join(scratch, `slow-mnt-${mbit}`);
  mkdirSync(place);
  const unmount = atEnd(() => must(process.execPath, [CLI, "unmount", "--lazy", place]));
  await ebsmount("mount", "--rw", "--no-writeback", snapshot, place);
  const mounted = join(place, `${snapshot}.img`);
  const dd = (...args) => onLine("dd", ["bs=1M", `count=${mib}`, "status=none", ...args]);
  row("sequential read", await seconds(() => dd(`if=${mounted}`, "of=/dev/null")));
  await dd(`if=${copy}`, `of=${mounted}`, "conv=notrunc", "seek=200");
  const commit = () => onLine(process.execPath, [CLI, "unmount", place]);
  row("commit at unmount", await seconds(commit));
  // Again, with the upload going on beside: what is read comes the other way.
  const beside = ["--rw", "--writeback-delay", "100ms", snapshot, place];
  await ebsmount("mount", ...beside);
  await dd(`if=${copy}`, `of=${mounted}`, "conv=notrunc", "seek=200");
  await until("the upload has begun", () => statusOf(place)?.status.service.bytesPut > 0);
  row(
    "sequential read beside uploads",
    await seconds(() => dd(`if=${mounted}`, "of=/dev/null")),
    70,
  );
  await onLine(process.execPath, [CLI, "unmount", place]);
  unmount.cancel();
  for (const path of [image, copy]) rmSync(path, { force: true });
  stop();
  down();
}
report("slow-lines", rows);
