/**
 * The sizes everything here is counted in, from the EBS direct APIs: a volume is a whole number of
 * GiB, a block is 512 KiB and is addressed by its index, a sector is what a disk writes atomically.
 */

/** Bytes in a block. Source: EBS direct APIs user guide ("block size is 512 KiB"). */
export const BLOCK_SIZE = 524_288;
/** Bytes in a sector, the unit in which written data is tracked. */
export const SECTOR_SIZE = 512;
export const SECTORS_PER_BLOCK = BLOCK_SIZE / SECTOR_SIZE;
export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const TIB = 1024 * GIB;
export const BLOCKS_PER_GIB = GIB / BLOCK_SIZE;
/** Largest volume, GiB (64 TiB). */
export const MAX_VOLUME_GIB = 65_536;

const UNITS: Record<string, number> = {
  "": 1,
  b: 1,
  k: KIB,
  m: MIB,
  g: GIB,
  t: TIB,
};

/**
 * Bytes in a size as people write it: `512`, `64k`, `256M`, `1.5GiB`, `8 GB` (all powers of 1024).
 * @returns undefined where the text is not a size, is negative, or is not a whole number of bytes.
 */
export function parseSize(text: string): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*$/i.exec(text);
  if (match === null) return undefined;
  // 1.1 GiB is no whole number of bytes; nobody means a fraction of one.
  const bytes = Math.ceil(Number(match[1]) * (UNITS[(match[2] ?? "").toLowerCase()] ?? Number.NaN));
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

/** `1.5 GiB`, `512 KiB`, `17 B`: three significant digits at most, for tables and sentences. */
export function formatSize(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = value >= 100 || Number.isInteger(value) ? 0 : 1;
  return `${value.toFixed(digits)} ${units[unit]}`;
}
