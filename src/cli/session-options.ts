/**
 * The place that a command about a session goes by: what its options name, else what the session's record
 * says. Loaded before it is clear that anything heavy is needed.
 */
import type { PlaceOptions } from "../aws/settings.js";

/**
 * @param context of the session's record. @param options of a command about the session.
 * @throws Failure EINVAL where --profile names a profile that cannot be used
 */
export async function withSessionPlace<T extends PlaceOptions>(
  context: PlaceOptions,
  options: T,
): Promise<T & PlaceOptions> {
  const { region, profile, endpointUrl } = options;
  if (endpointUrl === undefined && profile !== undefined && profile !== context.profile) {
    const { profileEndpoint } = await import("../aws/settings.js");
    // Such a profile names a place of its own.
    if (profileEndpoint(profile) !== undefined) return options;
  }
  const { endpointUrl: recorded, ...rest } = context;
  const isOtherRegion = region !== undefined && region !== context.region;
  // An endpoint of one region does not serve another.
  const isKept =
    recorded !== undefined && !(isOtherRegion && namesRegion(recorded, context.region));
  return { ...rest, ...(isKept && { endpointUrl: recorded }), ...options };
}

function namesRegion(endpointUrl: string, region: string | undefined): boolean {
  if (region === undefined || !URL.canParse(endpointUrl)) return false;
  return new URL(endpointUrl).hostname.split(".").includes(region);
}
