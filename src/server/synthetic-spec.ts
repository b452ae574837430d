/**
 * The description of a synthetic snapshot as people write it, on the command line
 * (`size=64TiB,written=all,seed=1`) and in JSON for the admin path.
 */
import { Failure } from "../common/failure.js";
import { GIB, MAX_VOLUME_GIB, parseSize } from "../common/sizes.js";
import type { SyntheticSpec } from "./synthetic.js";

function fail(why: string): never {
  throw new Failure(
    "EINVAL",
    `A synthetic snapshot is described as size=64TiB,written=all,seed=1: ${why}.`,
  );
}

/** @param value an object with volumeSizeGiB or size, written (0.5 or "all"), seed. @throws Failure EINVAL */
export function parseSyntheticSpec(value: unknown): SyntheticSpec {
  if (typeof value !== "object" || value === null) fail("it needs at least a size");
  const given = value as Record<string, unknown>;
  for (const key of Object.keys(given)) {
    if (!["volumeSizeGiB", "size", "written", "seed"].includes(key)) fail(`"${key}" is not known`);
  }
  const bytes = given.size === undefined ? undefined : parseSize(String(given.size));
  const volumeSizeGiB = Number(given.volumeSizeGiB ?? (bytes ?? Number.NaN) / GIB);
  if (!Number.isInteger(volumeSizeGiB) || volumeSizeGiB < 1 || volumeSizeGiB > MAX_VOLUME_GIB) {
    fail("size is a whole number of GiB up to 64 TiB");
  }
  const written = given.written === undefined || given.written === "all" ? 1 : +`${given.written}`;
  if (!(written > 0 && written <= 1)) fail("written is all, or a share above 0 up to 1");
  const seed = Number(given.seed ?? 1);
  if (!Number.isInteger(seed) || seed < 0 || seed >= 2 ** 32) fail("seed is 0 to 4294967295");
  return { volumeSizeGiB, written, seed };
}

/** @param text `size=64TiB,written=0.5,seed=7`. @throws Failure EINVAL */
export function parseSyntheticText(text: string): SyntheticSpec {
  const pairs = text.split(",").map((pair) => {
    const mark = pair.indexOf("=");
    return mark < 0 ? fail(`"${pair}" has no value`) : [pair.slice(0, mark), pair.slice(mark + 1)];
  });
  return parseSyntheticSpec(Object.fromEntries(pairs));
}
