/**
 * Where requests go and who asks: profile, region, endpoints, certificates, found as the AWS CLI finds them.
 *
 * - profile: --profile, AWS_PROFILE, AWS_DEFAULT_PROFILE, else `default`. One that is named must be there.
 * - region: --region, AWS_REGION, AWS_DEFAULT_REGION, the profile's, the instance's.
 * - endpoint of a service: --endpoint-url; then, unless AWS_IGNORE_CONFIGURED_ENDPOINT_URLS or the profile's
 *   ignore_configured_endpoint_urls is true: AWS_ENDPOINT_URL_SERVICE, AWS_ENDPOINT_URL, the profile's
 *   `services` section, the profile's endpoint_url; else AWS's own.
 *
 * A variable that is set to nothing is not set. Sources: AWS CLI 2, botocore/configprovider.py; AWS SDKs and
 * Tools Reference Guide, "Service-specific endpoints". test/e2e/place.test.ts asks the AWS CLI itself.
 */
import { loadConfig, NODE_REGION_CONFIG_OPTIONS } from "@smithy/core/config";
import { Failure } from "../common/failure.js";
import {
  type ConfigFiles,
  type Environment,
  type Profile,
  quoted,
  readConfigFiles,
  requireProfile,
  variable,
} from "./config-files.js";
import { endpointUrlProblem } from "./endpoint-url.js";
import { hasEnvironmentKeys } from "./environment-keys.js";
import { nestedValues } from "./ini.js";

/** What the user said on the command line. */
export interface PlaceOptions {
  readonly region?: string;
  readonly profile?: string;
  readonly endpointUrl?: string;
}

export interface AwsSettings {
  readonly env: Environment;
  readonly profileName: string;
  /** `--profile` or the variable that names the profile; undefined for `default` unasked. */
  readonly profileFrom: string | undefined;
  readonly region: string;
  /** Absent: AWS's own, by the region. */
  readonly endpointUrl?: string;
  readonly useFipsEndpoint: boolean;
  readonly useDualstackEndpoint: boolean;
  /** A file of certificates that the profile names. */
  readonly caBundle?: string;
}

/** Keys in the environment go before the profile, unless that is given by --profile. */
export function usesEnvironmentKeys({ env, profileFrom }: AwsSettings): boolean {
  return profileFrom !== "--profile" && hasEnvironmentKeys(env);
}

/** Services that are asked for credentials, by their names in variables and in `services` sections. */
export type ServiceName = "ebs" | "sts" | "sso" | "signin";

/** Signed for where an endpoint is given and no region: servers that are not AWS take any. */
const REGION_ELSEWHERE = "us-east-1";
/** Source: AWS CLI, validate_region_name. */
const REGION = /^(?!-)[a-zA-Z0-9-]{1,63}(?<!-)$/;

/**
 * Asks the instance's metadata for the region where nothing else names it; makes no other request.
 * @throws Failure EINVAL that names the file, the profile, the variable or the option at fault
 */
export async function readSettings(
  options: PlaceOptions,
  env: Environment = process.env,
): Promise<AwsSettings> {
  const files = readConfigFiles(env);
  const [profileName, profileFrom] = profileOf(options, env);
  const profile =
    profileFrom === undefined
      ? files.profiles.get(profileName)
      : requireProfile(files, profileName, profileFrom);
  const endpointUrl = endpointOf("ebs", files, profile, env, options.endpointUrl);
  const isTrue = (name: string, key: string) =>
    (variable(env, name) ?? profile?.values.get(key))?.toLowerCase() === "true";
  const wantsFips = isTrue("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint");
  // An endpoint that is FIPS by its name need not be made so.
  if (wantsFips && endpointUrl !== undefined && !/[.-]fips[.-]/i.test(endpointUrl)) {
    throw new Failure(
      "EINVAL",
      `A FIPS endpoint is wanted (AWS_USE_FIPS_ENDPOINT or use_fips_endpoint), which ${quoted(endpointUrl)} is not by its name; leave one of them out.`,
    );
  }
  const caBundle = profile?.values.get("ca_bundle");
  return {
    env,
    profileName,
    profileFrom,
    region: await regionOf(options, env, profile, endpointUrl),
    ...(endpointUrl !== undefined && { endpointUrl }),
    useFipsEndpoint: endpointUrl === undefined && wantsFips,
    useDualstackEndpoint:
      endpointUrl === undefined && isTrue("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"),
    ...(caBundle && { caBundle }),
  };
}

/** Where requests to a service go that is asked for credentials; undefined for AWS's own. @throws Failure EINVAL */
export function configuredEndpoint(
  service: ServiceName,
  { env, profileName }: Pick<AwsSettings, "env" | "profileName">,
): string | undefined {
  const files = readConfigFiles(env);
  return endpointOf(service, files, files.profiles.get(profileName), env, undefined);
}

/** The endpoint that a profile itself names for EBS. @throws Failure EINVAL */
export function profileEndpoint(name: string, env: Environment = process.env): string | undefined {
  const files = readConfigFiles(env);
  return endpointOfProfile("ebs", files, requireProfile(files, name, "--profile"));
}

function profileOf({ profile }: PlaceOptions, env: Environment): [string, string | undefined] {
  const named: [string | undefined, string][] = [
    [profile, "--profile"],
    [variable(env, "AWS_PROFILE"), "AWS_PROFILE"],
    [variable(env, "AWS_DEFAULT_PROFILE"), "AWS_DEFAULT_PROFILE"],
  ];
  for (const [name, from] of named) if (name !== undefined) return [name, from];
  return ["default", undefined];
}

async function regionOf(
  options: PlaceOptions,
  env: Environment,
  profile: Profile | undefined,
  endpointUrl: string | undefined,
): Promise<string> {
  const named: [string | undefined, string][] = [
    [options.region, "--region"],
    [variable(env, "AWS_REGION"), "AWS_REGION"],
    [variable(env, "AWS_DEFAULT_REGION"), "AWS_DEFAULT_REGION"],
    [profile?.values.get("region"), `region of the AWS profile ${quoted(profile?.name ?? "")}`],
  ];
  for (const [region, from] of named) {
    if (!region) continue;
    if (REGION.test(region)) return region;
    const sentence = `${from} is ${quoted(region)}, which is not the name of a region; write it like eu-central-1.`;
    throw new Failure("EINVAL", sentence);
  }
  if (endpointUrl !== undefined && isLoopback(endpointUrl)) return REGION_ELSEWHERE;
  const found = await regionOfInstance();
  if (found !== undefined) return found;
  if (endpointUrl !== undefined) return REGION_ELSEWHERE;
  const sentence = "No AWS region is set; give --region, set AWS_REGION or run aws configure.";
  throw new Failure("EINVAL", sentence);
}

async function regionOfInstance(): Promise<string | undefined> {
  const nothing = () => undefined;
  const { default: ask } = NODE_REGION_CONFIG_OPTIONS;
  const selectors = { environmentVariableSelector: nothing, configFileSelector: nothing };
  try {
    return await loadConfig<string | undefined>({ ...selectors, default: ask })();
  } catch {
    return undefined;
  }
}

/** @param given by the user on the command line. @throws Failure EINVAL */
function endpointOf(
  service: ServiceName,
  files: ConfigFiles,
  profile: Profile | undefined,
  env: Environment,
  given: string | undefined,
): string | undefined {
  if (given !== undefined) return usable(given, "--endpoint-url");
  const ignored =
    variable(env, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") ??
    profile?.values.get("ignore_configured_endpoint_urls");
  if (ignored?.toLowerCase() === "true") return undefined;
  for (const name of [`AWS_ENDPOINT_URL_${service.toUpperCase()}`, "AWS_ENDPOINT_URL"]) {
    const url = variable(env, name);
    if (url !== undefined) return usable(url, name);
  }
  return profile === undefined ? undefined : endpointOfProfile(service, files, profile);
}

/** @throws Failure EINVAL */
function endpointOfProfile(
  service: ServiceName,
  files: ConfigFiles,
  profile: Profile,
): string | undefined {
  const { values } = profile;
  const owner = `of the AWS profile ${quoted(profile.name)}`;
  const sectionName = values.get("services");
  if (sectionName) {
    const section = files.services.get(sectionName);
    if (section === undefined) {
      const missing = `[services ${sectionName.slice(0, 80)}]`;
      const sentence = `services ${owner} names a section ${missing} that ${files.configPath} does not have; check its spelling.`;
      throw new Failure("EINVAL", sentence);
    }
    const url = nestedValues(section.get(service)).get("endpoint_url");
    if (url) return usable(url, `endpoint_url of ${service} in services ${quoted(sectionName)}`);
  }
  const url = values.get("endpoint_url");
  return url ? usable(url, `endpoint_url ${owner}`) : undefined;
}

function usable(url: string, from: string): string {
  const problem = endpointUrlProblem(url);
  if (problem === undefined) return url;
  throw new Failure("EINVAL", `${from} cannot be used. ${problem}`);
}

/** This machine itself. */
export function isLoopback(url: string): boolean {
  const { hostname } = new URL(url);
  return hostname === "localhost" || hostname === "[::1]" || hostname.startsWith("127.");
}
