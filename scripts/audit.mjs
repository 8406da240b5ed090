/**
 * Asks the npm registry whether anything is known against a production dependency, whatever its severity: `npm run audit`.
 * Exit code 1: there is. 69: the registry does not say, as some mirrors do not; with `--if-possible` that is let pass.
 */
import { execFile } from 'node:child_process';
import process from 'node:process';
import { parseArgs, promisify } from 'node:util';
import { ROOT, say } from './lib/packages.mjs';

const USAGE = `Usage: npm run audit [-- --if-possible]

  --if-possible  do not fail where the registry takes no questions
  --help         this text
`;
const UNAVAILABLE = 69;
const MAX_REPORT = 64 * 1024 * 1024;
const ARGUMENTS = [
  'audit',
  '--omit=dev',
  '--package-lock-only',
  '--json',
  '--fetch-timeout=60000',
  '--fetch-retries=1',
];

/** What `npm audit --json` says, whatever its exit code; where it cannot be run, why. */
async function ask() {
  try {
    return await promisify(execFile)('npm', ARGUMENTS, { cwd: ROOT, maxBuffer: MAX_REPORT });
  } catch (error) {
    return { stdout: error.stdout ?? '', stderr: error.stderr || error.message };
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** The first advisory of a package; of one that is only affected through another, that one's name. */
function reasonOf({ via }) {
  const advisory = via.find((one) => typeof one === 'object');
  return advisory ? `${advisory.title} (${advisory.url})` : `through ${via.join(', ')}`;
}

const { values } = parseArgs({
  options: { 'if-possible': { type: 'boolean', default: false }, help: { type: 'boolean', default: false } },
});
if (values.help) {
  process.stdout.write(USAGE);
  process.exit(0);
}
const { stdout, stderr } = await ask();
const report = parse(stdout);
if (report.auditReportVersion === undefined || report.metadata === undefined) {
  say(`not audited: ${(report.message ?? stderr.trim().split('\n')[0]) || 'npm audit said nothing'}`);
  process.exit(values['if-possible'] ? 0 : UNAVAILABLE);
}
const found = Object.values(report.vulnerabilities);
for (const { name, severity, range, ...rest } of found) {
  say(`${severity}: ${name} ${range}: ${reasonOf(rest)}`);
}
say(`${report.metadata.dependencies.prod} production dependencies, ${found.length} with known vulnerabilities`);
process.exit(found.length === 0 ? 0 : 1);
