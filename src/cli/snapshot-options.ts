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

/** The options that say what the snapshot is to be like. */
export const DESCRIBING = ["description", "tag", "encrypted", "kmsKeyArn", "timeout"] as const;

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

/** Source: StartSnapshot in the EBS direct APIs' reference. */
const MOST_TAGS = 50;
const KMS_KEY_ARN = /^arn:aws[a-z-]*:kms:.*:[0-9]{12}:key\/.+$/;

/**
 * What the service would refuse, before anything is done for it. Source of the limits: StartSnapshot.
 * @throws UsageFailure
 */
export function checkSnapshotOptions(options: Partial<SnapshotOptions>, hasParent: boolean): void {
  const { encrypted, kmsKeyArn, description, tag = [] } = options;
  if (hasParent && (encrypted || kmsKeyArn !== undefined)) {
    throw new UsageFailure(
      "A snapshot with a parent goes without --encrypted and --kms-key-arn: it is encrypted as its parent is.",
    );
  }
  if ((description?.length ?? 0) > 255) {
    throw new UsageFailure("--description is at most 255 characters.");
  }
  if (kmsKeyArn !== undefined && !KMS_KEY_ARN.test(kmsKeyArn)) {
    throw new UsageFailure(
      `--kms-key-arn is a key's ARN, arn:aws:kms:REGION:ACCOUNT:key/ID, not ${JSON.stringify(kmsKeyArn)}.`,
    );
  }
  const keys = tag.map(({ key }) => key);
  const twice = keys.find((key, at) => keys.indexOf(key) < at);
  if (twice !== undefined) throw new UsageFailure(`--tag ${twice} is given twice; give it once.`);
  const reserved = keys.find((key) => /^aws:/i.test(key));
  if (reserved !== undefined) {
    throw new UsageFailure(`--tag ${reserved}: keys that begin with aws: are AWS's own.`);
  }
  if (keys.length > MOST_TAGS) throw new UsageFailure(`A snapshot has at most ${MOST_TAGS} tags.`);
}

/** What the options ask of StartSnapshot. */
export function snapshotSettings(options: Partial<SnapshotOptions>): CommitSettings {
  const { description, tag, kmsKeyArn, timeout } = options;
  return {
    ...(timeout !== undefined && { timeoutMinutes: Math.round(timeout / 60_000) }),
    ...(description !== undefined && { description }),
    ...(tag !== undefined && { tags: tag }),
    ...((options.encrypted || kmsKeyArn !== undefined) && { encrypted: true }),
    ...(kmsKeyArn !== undefined && { kmsKeyArn }),
  };
}
