/**
 * `ebsmount import`: opens the image, the parent and the pending snapshot, uploads what must be, and
 * completes. The snapshot's id is printed only for a snapshot that the service took as complete. An
 * import that fails says how to go on with it: the client token leads to the same pending snapshot,
 * and the ledger in the state folder knows what it holds.
 */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { errnoOf, Failure } from "../common/failure.js";
import { formatSize } from "../common/sizes.js";
import type { EbsApi, StartSnapshotOptions } from "../ebs/api.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { openStateFolder } from "../mount/state-folder.js";
import { BlockList } from "../snapshot/block-list.js";
import { estimateImport } from "../snapshot/estimate.js";
import { type ImportInputs, importImage } from "../snapshot/image-import.js";
import type { BlockChoice, ImageSource } from "../snapshot/image-source.js";
import { openImportLedger, removeImportLedger } from "../snapshot/import-ledger.js";
import { findMissing, lacksInherited, listedParentBlocks } from "../snapshot/verify-snapshot.js";
import { type SnapshotWriter, startSnapshotWriter } from "../snapshot/writer.js";
import { interruptible, UsageFailure } from "./errors.js";
import { checkEstimate, type EstimateOptions, printEstimate } from "./estimate.js";
import { openImage } from "./input.js";
import { compileLater } from "./late-compile.js";
import { type ServiceOptions, snapshotArgument } from "./options.js";
import { startProgress } from "./progress.js";
import { printResult } from "./result.js";
import { openService } from "./service.js";
import {
  checkSnapshotOptions,
  type SnapshotOptions,
  snapshotSettings,
} from "./snapshot-options.js";

export interface ImportOptions extends ServiceOptions, SnapshotOptions, EstimateOptions {
  readonly parent?: string;
  readonly clientToken?: string;
  readonly omitZeroBlocks?: boolean;
  readonly allBlocks?: boolean;
  readonly stateDir?: string;
  /** Bytes, of an image in a stream. */
  readonly size?: number;
}

function choiceOf({ omitZeroBlocks, allBlocks }: ImportOptions): BlockChoice {
  if (omitZeroBlocks) return "nonzero";
  return allBlocks ? "all" : "written";
}

export async function importFile(path: string, options: ImportOptions): Promise<void> {
  checkUsage(options);
  const source = await openImage(path, options.size);
  try {
    compileLater();
    const { api, meter } = await openService(options);
    try {
      const id = await interruptible(async (signal) => {
        const inputs = await openInputs(api, source, options, signal);
        if (!options.estimate) return await run(api, inputs, options, signal);
        const range = await estimateImport(inputs, signal);
        printEstimate(`Import of ${path}`, range, meter, options);
        return undefined;
      });
      if (id !== undefined) printResult([id], `The image is snapshot ${id}`);
    } finally {
      await api.close();
    }
  } finally {
    await source.close();
  }
}

function checkUsage(options: ImportOptions): void {
  checkEstimate(options);
  checkSnapshotOptions(options, options.parent !== undefined);
  const { clientToken } = options;
  // Source of the limit: StartSnapshot.
  if (clientToken !== undefined && (clientToken.length < 1 || clientToken.length > 255)) {
    throw new UsageFailure("--client-token is 1 to 255 characters.");
  }
}

/** @throws Failure EINVAL where the image is no child of its parent; EbsError */
async function openInputs(
  api: EbsApi,
  source: ImageSource,
  options: ImportOptions,
  signal: AbortSignal,
): Promise<ImportInputs> {
  const parent =
    options.parent === undefined
      ? undefined
      : await BlockList.open(api, snapshotArgument(options.parent), signal);
  if (parent !== undefined && source.volumeSizeGiB < parent.volumeSizeGiB) {
    throw new Failure(
      "EINVAL",
      `${source.name} is smaller than the volume of its parent (${parent.volumeSizeGiB} GiB), which a child cannot be; enlarge the image (truncate -s ${parent.volumeSizeGiB}G) or leave out --parent.`,
    );
  }
  return { source, choice: choiceOf(options), ...(parent !== undefined && { parent }) };
}

async function run(
  api: EbsApi,
  inputs: ImportInputs,
  options: ImportOptions,
  signal: AbortSignal,
): Promise<string> {
  const { source, parent } = inputs;
  const folder = join(openStateFolder(options.stateDir).path, "imports");
  const clientToken = options.clientToken ?? randomUUID();
  const resumed = options.clientToken !== undefined;
  const start: StartSnapshotOptions = {
    volumeSizeGiB: source.volumeSizeGiB,
    clientToken,
    ...snapshotSettings(options),
    ...(parent !== undefined && { parentSnapshotId: parent.snapshotId }),
    signal,
  };
  let writer: SnapshotWriter | undefined;
  let completed = false;
  try {
    writer = await startSnapshotWriter(api, start, (id) => openImportLedger(folder, id, resumed));
    if (!resumed && writer.status !== "pending") {
      throw new Failure(
        "EIO",
        `${writer.snapshotId} was started just now, and the service says that its status is ${writer.status} already: nothing was put into it, so it is not this image. Check --endpoint-url.`,
      );
    }
    if (writer.status === "completed") {
      const said = `${writer.snapshotId} was completed by an earlier import with this client token; nothing was uploaded now.`;
      process.stderr.write(`${said}\n`);
    } else {
      await upload(writer, inputs, resumed, options, signal);
    }
    completed = true;
    if (options.wait) await verify(api, writer, parent?.snapshotId, signal);
    await removeImportLedger(folder, writer.snapshotId);
    return writer.snapshotId;
  } catch (error) {
    throw completed ? error : withAdvice(error, writer, clientToken, signal);
  } finally {
    await writer?.digests.close();
  }
}

/** @throws Failure EIO where the completed snapshot lacks what it must show */
async function verify(
  api: EbsApi,
  writer: SnapshotWriter,
  parentId: SnapshotId | undefined,
  signal: AbortSignal,
): Promise<void> {
  const parentBlocks = parentId && listedParentBlocks(api, parentId, signal);
  const missing = await findMissing(api, writer, parentBlocks, signal);
  if (missing === undefined) return;
  const { kind, blockIndex } = missing;
  if (kind === "inherited" && parentId !== undefined) {
    throw lacksInherited(writer.snapshotId, parentId, blockIndex);
  }
  throw new Failure(
    "EIO",
    `${writer.snapshotId} is completed but does not list block ${blockIndex}, which was put into it: do not use it. Check --endpoint-url, and import again.`,
  );
}

async function upload(
  writer: SnapshotWriter,
  inputs: ImportInputs,
  resumed: boolean,
  options: ImportOptions,
  signal: AbortSignal,
): Promise<void> {
  if (writer.status === "error") {
    throw new Failure(
      "EIO",
      `${writer.snapshotId}, started with this client token, has failed or expired; import again without the token.`,
    );
  }
  const { source, choice } = inputs;
  if (choice === "written" && !source.tellsHoles) sayAllBlocks(source);
  const bar = startProgress("Importing", "bytes");
  try {
    await importImage({
      ...inputs,
      writer,
      resumed,
      concurrency: options.concurrency,
      signal,
      onProgress: (done, moved) => bar.update(done, source.size, moved),
    });
  } finally {
    bar.stop();
  }
  const completion = await writer.complete({ wait: options.wait, signal });
  if (completion === "accepted" && options.wait) {
    process.stderr.write(
      `${writer.snapshotId} is written; without the permission ebs:ListSnapshotBlocks it cannot be asked here when it is completed.\n`,
    );
  }
}

function sayAllBlocks({ name, size }: ImageSource): void {
  process.stderr.write(
    `Nothing tells which parts of ${name} were never written, so all ${formatSize(size)} are uploaded, zeros too (see --omit-zero-blocks).\n`,
  );
}

/** What failed, and how to go on with the pending snapshot where there is or may be one. */
function withAdvice(
  error: unknown,
  writer: SnapshotWriter | undefined,
  clientToken: string,
  signal: AbortSignal,
): unknown {
  if (writer === undefined || writer.status !== "pending") return error;
  const reason = signal.aborted ? signal.reason : error;
  if (!(reason instanceof Failure)) return reason;
  const errno = errnoOf(reason);
  const expires = `The unfinished ${writer.snapshotId} expires by itself`;
  // EFBIG: a stream was longer than --size, and the volume may have to be larger.
  const advice =
    errno === "EFBIG"
      ? `${expires}.`
      : `${expires}; to go on with it, run the same command with --client-token ${clientToken}`;
  return new Failure(errno, `${reason.message} ${advice}`, { cause: reason });
}
