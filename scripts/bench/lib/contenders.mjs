/**
 * Those who move many blocks: ebsmount's export, import, commit and mount, the bare SDK, and coldsnap, the
 * tool that people use today. Each does its work once and gives what takeTurn wants. Whole commands are
 * measured from their start to their end, a mount and a loop over the SDK while they move blocks.
 */
import { accessSync, constants, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { endedChildrenTime, watchProcess } from "./processor-time.mjs";
import { fillWithRandom } from "./random-file.mjs";
import {
  atEnd,
  bareSdk,
  CLI,
  create,
  env,
  mustAsync,
  scratch,
  statusOf,
  stopProcess,
} from "./rig.mjs";
import { BLOCKS_PER_GIB, blockCalls } from "./services.mjs";

/** Requests at a time of the bare SDK, and the default of the others. */
export const CONCURRENCY = 64;
const SDK_WARM_UP_BLOCKS = 256;

/** coldsnap, by BENCH_COLDSNAP: { path, name }; path is undefined where it is not to run. */
export const coldsnap = findColdsnap(process.env.BENCH_COLDSNAP);

function findColdsnap(path) {
  if (!path) return { name: "coldsnap" };
  accessSync(path, constants.X_OK);
  // It has no --version; the paths of its sources in the binary say it.
  const version = readFileSync(path, "latin1").match(/coldsnap-(\d+\.\d+\.\d+)\//)?.[1];
  return { path, name: version === undefined ? "coldsnap" : `coldsnap ${version}` };
}

/** Runs a command to its end and accounts for all of it. */
async function runCommand(command, args) {
  let watch;
  const before = endedChildrenTime();
  const start = performance.now();
  const output = await mustAsync(command, args, {
    onStart: (pid) => {
      watch = watchProcess(pid);
    },
  });
  const seconds = (performance.now() - start) / 1000;
  const { threadSeconds } = watch.stop();
  return { output, seconds, processorSeconds: endedChildrenTime() - before, threadSeconds };
}

/** Downloads a snapshot into a file and removes that. @param command the arguments before the file. */
async function download(command, args, gib) {
  const target = join(scratch, "download.img");
  const { output: _, ...done } = await runCommand(command, [...args, target]);
  rmSync(target);
  return { blocks: gib * BLOCKS_PER_GIB, ...done };
}

export function exportSnapshot({ url }, snapshot, gib) {
  const args = [CLI, "export", "--endpoint-url", url, snapshot];
  return download(process.execPath, args, gib);
}

export const coldsnapArgs = ({ url }) => ["--endpoint", url, "--region", env.AWS_REGION];

export function coldsnapDownload(service, snapshot, gib) {
  const args = [...coldsnapArgs(service), "download", "--no-progress", snapshot];
  return download(coldsnap.path, args, gib);
}

/** Uploads a file and removes the snapshot. */
async function upload({ endpoint }, command, args, gib) {
  const { output, ...done } = await runCommand(command, args);
  return {
    blocks: gib * BLOCKS_PER_GIB,
    ...done,
    cleanUp: () => endpoint.remove(output.trim()),
  };
}

export function importFile(service, file, gib) {
  const args = [CLI, "import", "--endpoint-url", service.url, file];
  return upload(service, process.execPath, args, gib);
}

/** With neither --wait (that asks EC2, which the endpoint has not) nor --omit-zero-blocks (there are none). */
export function coldsnapUpload(service, file, gib) {
  const args = [...coldsnapArgs(service), "upload", "--no-progress", file];
  return upload(service, coldsnap.path, args, gib);
}

/**
 * A blank volume filled with random data, to be committed. Background upload is off: it would leave the
 * commit nothing to do.
 * @returns what commits it, from unmount to its end.
 */
export function prepareCommit({ url, endpoint }, gib) {
  const size = `${gib}GiB`;
  const mounted = create("--endpoint-url", url, "--size", size, "--no-writeback");
  const { pid } = statusOf(mounted.place);
  // So that an interrupted bench does not commit to the end what it throws away.
  const kill = atEnd(() => stopProcess(pid, "SIGKILL"));
  fillWithRandom(mounted.image, "r+", gib);
  return async () => {
    const before = endedChildrenTime();
    const watch = watchProcess(pid);
    const start = performance.now();
    const snapshot = await mounted.unmountAsync();
    const seconds = (performance.now() - start) / 1000;
    const { processorSeconds, threadSeconds } = watch.stop();
    kill.cancel();
    return {
      blocks: gib * BLOCKS_PER_GIB,
      seconds,
      processorSeconds: processorSeconds + endedChildrenTime() - before,
      threadSeconds,
      cleanUp: () => endpoint.remove(snapshot),
    };
  };
}

/**
 * Reads through a mount as dd does, with the kernel's page cache. The readahead goes on for some blocks
 * after the last read: the processor time is until that is over, for all blocks that were fetched.
 * @param mounted { image, pid }
 */
export async function readSequentially({ endpoint }, { image, pid }, first, count) {
  const watch = watchProcess(pid);
  const start = performance.now();
  const range = [`skip=${first / 2}`, `count=${count / 2}`];
  await mustAsync("dd", [`if=${image}`, "of=/dev/null", "bs=1M", "status=none", ...range]);
  const seconds = (performance.now() - start) / 1000;
  const costBlocks = await callsOnceQuiet(endpoint);
  return { blocks: count, seconds, costBlocks, ...watch.stop() };
}

/** @returns the block requests until there were no more for a quarter of a second. */
async function callsOnceQuiet(endpoint) {
  let calls = 0;
  for (;;) {
    const now = await blockCalls(endpoint);
    if (now === calls) return calls;
    calls = now;
    await sleep(250);
  }
}

/** Fetches blocks by the bare SDK, to nowhere. */
export async function bareGet({ url }, snapshot, first, count, concurrency = CONCURRENCY) {
  const warmUp = Math.min(SDK_WARM_UP_BLOCKS, concurrency * 4);
  const blocks = { what: "get", subject: snapshot, first, count, concurrency, warmUp };
  return { blocks: count, ...(await bareSdk({ ...blocks, url })) };
}

/** Puts the blocks of a file by the bare SDK, into a snapshot that is never completed. */
export async function barePut({ url, endpoint }, file, gib) {
  const warmUp = CONCURRENCY;
  const count = gib * BLOCKS_PER_GIB - warmUp;
  const blocks = { what: "put", subject: file, first: 0, count, concurrency: CONCURRENCY, warmUp };
  const done = await bareSdk({ ...blocks, url });
  return { blocks: count, ...done, cleanUp: endpoint.removePending };
}
