import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline/promises";
import { Failure } from "../common/failure.js";
import { formatSize } from "../common/sizes.js";
import type { EbsApi } from "../ebs/api.js";
import { openSessionVolume } from "../mount/session-volume.js";
import { openStateFolder } from "../mount/state-folder.js";
import { findFinished, listFinished } from "../overlay/finished-sessions.js";
import { discardSession, mayGoOn, openSession, type Session } from "../overlay/session.js";
import { type ListedSession, listSessions } from "../overlay/session-list.js";
import type { CommitSettings } from "../overlay/session-record.js";
import { Interrupted, interruptible } from "./errors.js";
import { finishedToJson, finishedToText } from "./finished-text.js";
import type { ServiceOptions } from "./options.js";
import { CommitBar } from "./progress.js";
import { printResult } from "./result.js";
import { openService } from "./service.js";
import { withSessionPlace } from "./session-options.js";
import { settlePlace } from "./session-place.js";

export interface SessionsCommandOptions {
  readonly json?: boolean;
  /** Those that have ended as well. */
  readonly all?: boolean;
  readonly stateDir?: string;
}

export function printSessions(options: SessionsCommandOptions): void {
  const { path } = openStateFolder(options.stateDir);
  const finished = options.all ? listFinished(path) : [];
  const sessions = listSessions(path);
  if (options.json) {
    const told = { sessions: [...finished.map(finishedToJson), ...sessions.map(toJson)] };
    process.stdout.write(`${JSON.stringify(told, null, 2)}\n`);
    return;
  }
  const texts = [...finished.map(finishedToText), ...sessions.map(toText)];
  process.stdout.write(`${texts.length === 0 ? "No sessions." : texts.join("\n\n")}\n`);
}

/** Client tokens stay out: who has one can ask for the same snapshot. */
function toJson({ id, path, record, inUse, dirtyBytes, problem }: ListedSession): object {
  if (record === undefined) return { id, path, inUse, problem };
  const { kind, state, parentSnapshotId, volumeSizeGiB, mountPoint, resultSnapshotId } = record;
  return {
    id,
    path,
    inUse,
    kind,
    state,
    parentSnapshotId,
    pendingSnapshotId: record.upload?.snapshotId,
    resultSnapshotId,
    volumeSizeGiB,
    mountPoint,
    dirtyBytes,
    createdAt: new Date(record.createdAt).toISOString(),
    problem,
  };
}

function toText({ id, record, inUse, dirtyBytes, problem }: ListedSession): string {
  const lines = [`${id}  ${inUse ? "in use" : "interrupted"}`];
  if (record !== undefined) {
    const of = record.parentSnapshotId ?? "blank";
    lines.push(`  ${record.kind} of ${of}, ${record.volumeSizeGiB} GiB, at ${record.mountPoint}`);
    const dirty = dirtyBytes === undefined ? "" : `, ${formatSize(dirtyBytes)} changed`;
    lines.push(`  since ${new Date(record.createdAt).toISOString()}${dirty}`);
    const result = record.resultSnapshotId ?? record.upload?.snapshotId;
    if (result !== undefined) lines.push(`  ${record.state}: ${result}`);
  }
  if (problem !== undefined) lines.push(`  ${problem}`);
  if (!inUse) {
    if (record?.kind === "rw") {
      lines.push(`  finish it:   ebsmount commit ${id}`);
      if (mayGoOn(record)) lines.push(`  go on in it: ebsmount mount --resume ${id} MOUNTPOINT`);
    }
    lines.push(`  drop it:     ebsmount discard ${id}`);
  }
  return lines.join("\n");
}

export interface CommitCommandOptions extends ServiceOptions {
  readonly wait: boolean;
  readonly stateDir?: string;
}

/** Of a session that has become a snapshot already, says so again. @returns whether it has. */
async function sayFinished(path: string, id: string): Promise<boolean> {
  const finished = findFinished(path, id);
  if (finished === undefined) return false;
  // What a process that died between the two has left of it.
  if (listSessions(path).some((session) => session.id === id)) await discardSession(path, id);
  process.stderr.write(`${finishedToText(finished)}\n`);
  printSnapshot(finished.resultSnapshotId);
  return true;
}

/** @throws Failure EINVAL where the session is none to be committed there, or like that. */
async function prepare(
  session: Session,
  api: EbsApi,
  place: ServiceOptions,
  changes: CommitSettings,
): Promise<void> {
  const { id, record } = session;
  if (record.kind === "scratch") {
    throw new Failure(
      "EINVAL",
      `Session ${id} is a scratch one: its changes never become a snapshot; drop it with \`ebsmount discard ${id}\`.`,
    );
  }
  await settlePlace(session, api, place);
  if (Object.keys(changes).length === 0) return;
  const { upload: started, commit } = record;
  if (started?.snapshotId !== undefined) {
    throw new Failure(
      "EINVAL",
      `The snapshot of session ${id}, ${started.snapshotId}, has been started as it was described before: leave the options that describe it out.`,
    );
  }
  // What the service refused is asked for as something new.
  const clientToken = randomUUID();
  const upload = started && { ...started, clientToken };
  await session.update({ commit: { ...commit, ...changes }, ...(upload && { upload }) });
}

/**
 * Of a session that has become a snapshot already, only says so again: who repeats a commit that was
 * cut off must come to the same end.
 * @param changes to how the snapshot is described.
 * @throws Failure as the commit did; the session is kept then.
 */
export async function commitSession(
  id: string,
  options: CommitCommandOptions,
  changes: CommitSettings = {},
): Promise<void> {
  const { path } = openStateFolder(options.stateDir);
  if (await sayFinished(path, id)) return;
  const session = await openSession(path, id).catch(async (error: unknown) => {
    // Another commit may have ended while this one waited for the lock.
    if (await sayFinished(path, id)) return undefined;
    throw error;
  });
  if (session === undefined) return;
  const place = await withSessionPlace(session.record.context, options);
  const isProven = options.endpointUrl === undefined;
  const service = await openService({ ...place, isProven });
  try {
    await prepare(session, service.api, place, changes);
  } catch (error) {
    await session.close();
    await service.api.close();
    throw error;
  }
  const bar = new CommitBar();
  try {
    const volumes = await openSessionVolume(service, session, {
      // One reader that goes once through what changed: a small cache will do.
      cacheBytes: 64 * 1024 * 1024,
      readAheadBytes: 0,
      concurrency: options.concurrency,
      ioTimeoutMs: options.ioTimeout,
      log: service.log,
      wait: options.wait,
    });
    try {
      const outcome = await interruptible((signal) => volumes.finish(bar.update, signal));
      bar.stop();
      if (outcome.message !== undefined) process.stderr.write(`${outcome.message}\n`);
      printSnapshot(outcome.snapshotId);
    } catch (cause) {
      if (!(cause instanceof Interrupted)) throw cause;
      const again = `the changes are kept, and \`ebsmount commit ${id}\` goes on with it.`;
      throw new Failure("EINTR", `Interrupted; ${again}`, { cause });
    } finally {
      bar.stop();
      // The outcome is told; this is not a part of it.
      await volumes.close().catch((error: unknown) => {
        process.stderr.write(`ebsmount: ${(error as Error).message}\n`);
      });
    }
  } finally {
    await service.api.close();
  }
}

function printSnapshot(snapshotId: string | undefined): void {
  if (snapshotId !== undefined) printResult([snapshotId], `The changes are snapshot ${snapshotId}`);
}

export async function discard(id: string, yes: boolean, stateDir?: string): Promise<void> {
  const folder = openStateFolder(stateDir);
  if (!yes) {
    const listed = listSessions(folder.path).find((session) => session.id === id);
    if (listed !== undefined) process.stderr.write(`${toText(listed)}\n`);
    if (!process.stdin.isTTY) {
      throw new Failure("EINVAL", "Nobody is here to ask: say --yes to throw the changes away.");
    }
    const ask = createInterface({ input: process.stdin, output: process.stderr });
    const answer = await ask.question("Throw these changes away for good? [y/N] ");
    ask.close();
    if (!/^y(es)?$/i.test(answer.trim())) throw new Failure("EINTR", "Nothing was thrown away.");
  }
  const record = await discardSession(folder.path, id);
  const pending = record?.upload?.snapshotId;
  process.stderr.write(
    `Session ${id} is gone.${
      pending === undefined || record?.state === "committed"
        ? ""
        : ` Its unfinished snapshot ${pending} ends by itself, or delete it now: aws ec2 delete-snapshot --snapshot-id ${pending}`
    }\n`,
  );
}
