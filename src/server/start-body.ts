/**
 * The JSON body of StartSnapshot, checked against the service's limits. Source: the service's model
 * (EBS direct APIs, 2019-11-02): ranges, lengths and patterns as given there, a pattern without
 * anchors fitting anywhere in the text. The rules that the model leaves out (50 tags, each key once,
 * none of AWS's own) are those of EC2's "Tag your resources".
 */
import { MAX_VOLUME_GIB } from "../common/sizes.js";
import type { SnapshotId } from "../ebs/snapshot-id.js";
import { id } from "./call.js";
import { invalid } from "./service-error.js";
import type { StartParameters, Tag } from "./snapshot-record.js";

const MAX_TAGS = 50;
const MAX_TAG_KEY = 127;
const MAX_TAG_VALUE = 255;
const KEY_ARN = /arn:aws[a-z-]*:kms:.*:[0-9]{12}:key\/.*/;
const DEFAULT_TIMEOUT = 60;

/** @throws ServiceError ValidationException */
export function parseStartBody(bytes: Uint8Array, ownerId: string): StartParameters {
  const body = parseObject(bytes);
  const volumeSizeGiB = body.VolumeSize;
  if (
    typeof volumeSizeGiB !== "number" ||
    !Number.isInteger(volumeSizeGiB) ||
    volumeSizeGiB < 1 ||
    volumeSizeGiB > MAX_VOLUME_GIB
  ) {
    throw invalid("INVALID_VOLUME_SIZE", `VolumeSize must be 1 to ${MAX_VOLUME_GIB} GiB.`);
  }
  const parent = parentOf(body);
  const timeout = body.Timeout ?? DEFAULT_TIMEOUT;
  if (typeof timeout !== "number" || !Number.isInteger(timeout) || timeout < 10 || timeout > 4320) {
    throw invalid("INVALID_PARAMETER_VALUE", "Timeout must be 10 to 4320 minutes.");
  }
  const clientToken = textOf(body, "ClientToken", 255);
  if (clientToken !== undefined && !/^\S+$/.test(clientToken)) {
    throw invalid("INVALID_PARAMETER_VALUE", "ClientToken must not hold white space.");
  }
  const description = textOf(body, "Description", 255);
  const kmsKeyArn = keyOf(body, parent, ownerId);
  return {
    volumeSizeGiB,
    ...(parent === undefined ? {} : { parentSnapshotId: parent }),
    ...(description === undefined ? {} : { description }),
    tags: tagsOf(body.Tags),
    ...(kmsKeyArn === undefined ? {} : { kmsKeyArn }),
    timeoutMinutes: timeout,
    ...(clientToken === undefined ? {} : { clientToken }),
  };
}

function parseObject(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    value = undefined;
  }
  if (typeof value === "object" && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  throw invalid("INVALID_PARAMETER_VALUE", "The request body must be a JSON object in UTF-8.");
}

function textOf(
  body: Record<string, unknown>,
  name: string,
  maxLength: number,
): string | undefined {
  const value = body[name] ?? undefined;
  if (value === undefined) return undefined;
  if (typeof value === "string" && value !== "" && lengthOf(value) <= maxLength) return value;
  throw invalid("INVALID_PARAMETER_VALUE", `${name} must be text of 1 to ${maxLength} characters.`);
}

function parentOf(body: Record<string, unknown>): SnapshotId | undefined {
  const parent = body.ParentSnapshotId ?? undefined;
  return parent === undefined ? undefined : (id(String(parent)) as SnapshotId);
}

/** Characters as the service counts them: Unicode scalar values. Source: Smithy, length trait. */
function lengthOf(text: string): number {
  return [...text].length;
}

function keyOf(
  body: Record<string, unknown>,
  parent: string | undefined,
  ownerId: string,
): string | undefined {
  const encrypted = body.Encrypted ?? undefined;
  if (encrypted !== undefined && typeof encrypted !== "boolean") {
    throw invalid("INVALID_PARAMETER_VALUE", "Encrypted must be true or false.");
  }
  const kmsKeyArn = textOf(body, "KmsKeyArn", 2048);
  if (parent !== undefined && (encrypted !== undefined || kmsKeyArn !== undefined)) {
    throw invalid(
      "INVALID_PARAMETER_VALUE",
      "ParentSnapshotId cannot be given together with Encrypted or KmsKeyArn: a child is encrypted as its parent is.",
    );
  }
  if (kmsKeyArn === undefined) {
    // The account's default key; there is no key service here.
    return encrypted === true ? `arn:aws:kms:local:${ownerId}:key/default` : undefined;
  }
  if (encrypted !== true) {
    throw invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn needs Encrypted to be true.");
  }
  if (!KEY_ARN.test(kmsKeyArn)) {
    throw invalid("INVALID_CUSTOMER_KEY", "KmsKeyArn is not the ARN of a KMS key.");
  }
  return kmsKeyArn;
}

function tagsOf(value: unknown): Tag[] {
  const tags = value ?? [];
  if (!Array.isArray(tags) || tags.length > MAX_TAGS) {
    throw invalid("INVALID_TAG", `Tags must be a list of at most ${MAX_TAGS} tags.`);
  }
  const keys = new Set<string>();
  return tags.map((tag: unknown) => {
    const { Key, Value } = (tag ?? {}) as { Key?: unknown; Value?: unknown };
    if (typeof Key !== "string" || Key === "" || lengthOf(Key) > MAX_TAG_KEY || keys.has(Key)) {
      throw invalid(
        "INVALID_TAG",
        `A tag's key must be 1 to ${MAX_TAG_KEY} characters and appear once.`,
      );
    }
    if (/^aws:/i.test(Key)) throw invalid("INVALID_TAG", "A tag's key must not start with aws:.");
    const text = Value ?? "";
    if (typeof text !== "string" || lengthOf(text) > MAX_TAG_VALUE) {
      throw invalid("INVALID_TAG", `A tag's value must be at most ${MAX_TAG_VALUE} characters.`);
    }
    keys.add(Key);
    return { Key, Value: text };
  });
}
