/**
 * `ebsmount export`: chooses the target, walks the snapshot into it, and says how to go on where it
 * was stopped.
 */
import type { Stats } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { Failure } from "../common/failure.js";
import { BLOCK_SIZE, GIB } from "../common/sizes.js";
import type { EbsApi } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { BlockList } from "../snapshot/block-list.js";
import { estimateExport } from "../snapshot/estimate.js";
import { ExportDevice } from "../snapshot/export-device.js";
import { ExportFile } from "../snapshot/export-file.js";
import { exportImage } from "../snapshot/image-export.js";
import { streamImage } from "../snapshot/image-stream.js";
import { interruptible } from "./errors.js";
import { checkEstimate, type EstimateOptions, printEstimate } from "./estimate.js";
import { compileLater } from "./late-compile.js";
import { type ServiceOptions, snapshotArgument } from "./options.js";
import { openOutput } from "./output.js";
import { startProgress } from "./progress.js";
import { openService, type Service } from "./service.js";

export interface ExportOptions extends ServiceOptions, EstimateOptions {
  readonly force?: boolean;
}

export async function exportSnapshot(
  snapshot: string,
  file: string,
  options: ExportOptions,
): Promise<void> {
  const snapshotId = snapshotArgument(snapshot);
  checkEstimate(options);
  compileLater();
  const service = await openService(options);
  const { api } = service;
  try {
    await interruptible(async (signal) => {
      if (options.estimate) await estimate(service, snapshotId, file, options, signal);
      else if (file === "-") await toOutput(api, snapshotId, options, signal);
      else await toFile(api, snapshotId, resolve(file), options, signal);
    });
  } finally {
    await api.close();
  }
}

async function estimate(
  { api, meter }: Service,
  snapshotId: SnapshotId,
  file: string,
  options: ExportOptions,
  signal: AbortSignal,
): Promise<void> {
  const kept = file === "-" ? 0 : await ExportFile.countKept(resolve(file), snapshotId);
  const list = await BlockList.open(api, snapshotId, signal);
  const range = await estimateExport(list, kept, signal);
  printEstimate(`Export of ${snapshotId}, ${list.volumeSizeGiB} GiB`, range, meter, options);
}

async function toFile(
  api: EbsApi,
  snapshotId: SnapshotId,
  path: string,
  options: ExportOptions,
  signal: AbortSignal,
): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found !== undefined) checkKind(path, found);
  const isDevice = found?.isBlockDevice() ?? false;
  const target = isDevice
    ? await ExportDevice.open(path)
    : await ExportFile.open(path, snapshotId, options.force ?? false);
  try {
    const list = await BlockList.open(api, snapshotId, signal);
    await target.prepare(list.volumeSizeGiB);
    if (target instanceof ExportFile && target.isResumed) {
      const what = "what is there is checked, and the rest fetched";
      process.stderr.write(`Going on with ${path}.partial: ${what}.\n`);
    }
    const size = list.volumeSizeGiB * GIB;
    const bar = startProgress("Exporting", "bytes");
    try {
      await exportImage({
        list,
        target,
        concurrency: options.concurrency,
        signal,
        onProgress: (done, moved) => bar.update(done, size, moved),
      });
      await target.finish();
    } catch (error) {
      bar.stop();
      const reason = signal.aborted ? signal.reason : error;
      throw reason instanceof Failure ? withAdvice(reason, path, target) : reason;
    }
    bar.stop();
  } finally {
    await target.close();
  }
}

function checkKind(path: string, found: Stats): void {
  if (found.isDirectory()) {
    throw new Failure("EISDIR", `${path} is a folder; name a file in it, such as disk.img.`);
  }
  if (!found.isFile() && !found.isBlockDevice()) {
    const message = `${path} is neither a file nor a block device; use - for standard output.`;
    throw new Failure("EINVAL", message);
  }
}

async function toOutput(
  api: EbsApi,
  snapshotId: SnapshotId,
  options: ExportOptions,
  signal: AbortSignal,
): Promise<void> {
  const output = openOutput();
  const bar = startProgress("Exporting", "bytes");
  try {
    const list = await BlockList.open(api, snapshotId, signal);
    await streamImage({
      list,
      concurrency: options.concurrency,
      signal,
      write: output.write,
      onProgress: (done, fetched) =>
        bar.update(done * BLOCK_SIZE, list.volumeSizeGiB * GIB, fetched * BLOCK_SIZE),
    });
  } finally {
    bar.stop();
    output.close();
  }
}

function withAdvice(reason: Failure, path: string, target: ExportFile | ExportDevice): Failure {
  const advice =
    target instanceof ExportFile
      ? `What is there is kept in ${path}.partial; the same command goes on with it.`
      : target.isTouched
        ? `${path} now holds only a part of the snapshot.`
        : `Nothing was written to ${path}.`;
  return new Failure(reason.errno, `${reason.message} ${advice}`, { cause: reason });
}
