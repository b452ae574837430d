/**
 * Keeps the SDK's remark on old Node versions off the user's screen. Must be imported before the
 * SDK. Source: "@aws-sdk/core", emitWarningIfUnsupportedVersion.
 */
process.env.AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED ??= "true";
