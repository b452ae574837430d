/** The options that describe a snapshot to be made, for every command that makes one. */
import { type Command, Option } from "commander";
import type { CommitSettings } from "../overlay/session-record.js";
import { UsageFailure } from "./errors.js";
import { durationParser, parseTag } from "./options.js";

export interface SnapshotOptions {
  readonly description?: string;
  readonly tag?: readonly { readonly key: string; readonly value: string }[];
  readonly encrypted?: boolean;
  readonly kmsKeyArn?: string;
  /** Milliseconds. */
  readonly timeout: number;
  readonly wait: boolean;
}

export function snapshotOptions(command: Command): Command {
  return command
    .option("--description <text>", "description of the snapshot, at most 255 characters")
    .addOption(
      new Option("--tag <key=value>", "tag of the snapshot; may be given several times").argParser(
        (text: string, tags: readonly unknown[] | undefined) => [...(tags ?? []), parseTag(text)],
      ),
    )
    .option("--encrypted", "encrypt it, with the account's default key unless --kms-key-arn")
    .option("--kms-key-arn <arn>", "encrypt it with this key")
    .addOption(
      new Option(
        "--timeout <time>",
        "how long the unfinished snapshot outlives an interruption: 10m to 72h (a bare number: minutes)",
      )
        .argParser(durationParser("--timeout", 10 * 60_000, 4320 * 60_000, "m"))
        .default(24 * 3600_000, "24h"),
    )
    .option("--no-wait", "end once the service has taken the completion");
}

/** Source of the limits: StartSnapshot. @throws UsageFailure */
export function checkSnapshotOptions(options: SnapshotOptions, hasParent: boolean): void {
  const { encrypted, kmsKeyArn, description } = options;
  if (hasParent && (encrypted || kmsKeyArn !== undefined)) {
    throw new UsageFailure(
      "A snapshot with a parent goes without --encrypted and --kms-key-arn: it is encrypted as its parent is.",
    );
  }
  if ((description?.length ?? 0) > 255) {
    throw new UsageFailure("--description is at most 255 characters.");
  }
}

/** What the options ask of StartSnapshot. */
export function snapshotSettings(options: SnapshotOptions): CommitSettings {
  const { description, tag, kmsKeyArn } = options;
  return {
    timeoutMinutes: Math.round(options.timeout / 60_000),
    ...(description !== undefined && { description }),
    ...(tag !== undefined && { tags: tag }),
    ...((options.encrypted || kmsKeyArn !== undefined) && { encrypted: true }),
    ...(kmsKeyArn !== undefined && { kmsKeyArn }),
  };
}
