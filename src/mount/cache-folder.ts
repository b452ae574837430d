/** Puts the disk cache between a mount and the service, where the user has given it a folder. */
import { DiskCache, type DiskReading } from "../cache/disk-cache.js";
import { NoCacheFolder, openCacheFolder } from "../cache/disk-cache-folder.js";
import { withDiskCache } from "../cache/disk-cached-api.js";
import type { Logger } from "../common/log.js";
import type { EbsApi } from "../ebs/api.js";
import { serviceIdentity } from "../ebs/identity.js";

export interface CacheFolderOptions {
  readonly folder: string;
  /** Most that the folder may take, bytes. */
  readonly bytes: number;
  /** As for the service. */
  readonly region?: string;
  readonly profile?: string;
  readonly endpointUrl?: string;
}

export interface CachedService {
  /** Closing it closes the cache and the api that was given. */
  readonly api: EbsApi;
  /** Absent where the folder could not be used. */
  readonly reading?: () => DiskReading;
}

/**
 * Makes no request.
 * @throws Failure where the folder is not this user's alone; one that cannot be used for other
 * reasons is logged and done without.
 */
export function openCachedService(
  api: EbsApi,
  options: CacheFolderOptions,
  log: Logger,
): CachedService {
  let folder: string;
  try {
    folder = openCacheFolder(options.folder);
  } catch (error) {
    if (!(error instanceof NoCacheFolder)) throw error;
    log.warn(`The cache folder ${options.folder} is not used: ${error.message}.`);
    return { api };
  }
  const cache = new DiskCache({
    folder,
    bytes: options.bytes,
    log: (level, message) => log[level](message),
  });
  return {
    api: withDiskCache(api, cache, () => serviceIdentity(options)),
    reading: () => cache.reading(),
  };
}
