/**
 * `ebsmount export`: chooses the target, walks the snapshot into it, and says how to go on where it
 * was stopped.
 */
import type { Stats } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { errnoOf, Failure } from "../common/failure.js";
import { BLOCK_SIZE, formatSize, GIB } from "../common/sizes.js";
import type { EbsApi } from "../ebs/api.js";
import { parseSnapshotId, type SnapshotId } from "../ebs/snapshot-id.js";
import { BlockList } from "../snapshot/block-list.js";
import { ExportDevice } from "../snapshot/export-device.js";
import { ExportFile } from "../snapshot/export-file.js";
import { exportImage } from "../snapshot/image-export.js";
import { streamImage } from "../snapshot/image-stream.js";
import { interruptible } from "./errors.js";
import type { ServiceOptions } from "./options.js";
import { openOutput } from "./output.js";
import { startProgress } from "./progress.js";
import { openService } from "./service.js";

export interface ExportOptions extends ServiceOptions {
  readonly force?: boolean;
}

export async function exportSnapshot(
  snapshot: string,
  file: string,
  options: ExportOptions,
): Promise<void> {
  const snapshotId = parseSnapshotId(snapshot);
  const { api } = await openService(options);
  try {
    await interruptible(async (signal) => {
      if (file === "-") await toOutput(api, snapshotId, options, signal);
      else await toFile(api, snapshotId, resolve(file), options, signal);
    });
  } finally {
    await api.close();
  }
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
    const start = target.startingBlockIndex;
    const list = await BlockList.open(api, snapshotId, signal, start);
    await target.prepare(list.volumeSizeGiB);
    if (start > 0) {
      process.stderr.write(`Going on at ${formatSize(start * BLOCK_SIZE)} of ${path}.partial.\n`);
    }
    const size = list.volumeSizeGiB * GIB;
    const bar = startProgress("Exporting", "bytes");
    try {
      await exportImage({
        list,
        startingBlockIndex: start,
        target,
        concurrency: options.concurrency,
        signal,
        onProgress: (done, moved) => bar.update(done, size, moved),
      });
      await target.finish();
    } catch (error) {
      bar.stop();
      throw withAdvice(error, path, isDevice, signal);
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

function withAdvice(error: unknown, path: string, isDevice: boolean, signal: AbortSignal): unknown {
  const reason = signal.aborted ? signal.reason : error;
  if (!(reason instanceof Failure)) return reason;
  const advice = isDevice
    ? `${path} now holds only a part of the snapshot.`
    : `What is there is kept in ${path}.partial; the same command goes on with it.`;
  return new Failure(errnoOf(reason), `${reason.message} ${advice}`, { cause: reason });
}
