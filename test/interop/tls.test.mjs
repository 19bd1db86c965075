// What a scanner of TLS servers finds on a listener of which the configuration says no more than `tls: true`.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {mkdtemp, readFile, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {text as contents} from 'node:stream/consumers';
import {test} from 'node:test';
import {Bridge} from './harness.mjs';

// What has to be among the findings, so that a scan which did not take place is none.
const asked = [
  'SSLv2', 'SSLv3', 'TLS1', 'TLS1_1', 'TLS1_2', 'TLS1_3', 'cipherlist_NULL', 'cipherlist_EXPORT', 'cipherlist_3DES_IDEA', 'cipherlist_STRONG',
  'heartbleed', 'CCS', 'ticketbleed', 'ROBOT', 'secure_renego', 'secure_client_renego', 'CRIME_TLS', 'BREACH', 'POODLE_SSL', 'SWEET32', 'FREAK',
  'LOGJAM', 'BEAST', 'LUCKY13', 'RC4',
];

// scan gives the findings of testssl.sh on protocols, ciphers, what the server prefers, forward secrecy and vulnerabilities.
async function scan(address) {
  const dir = await mkdtemp(path.join(tmpdir(), 'bridgehead-scan-'));
  try {
    const file = path.join(dir, 'findings.json');
    const child = spawn('testssl', ['--quiet', '--color', '0', '--warnings', 'batch', '-p', '-s', '-f', '-P', '-U', '--jsonfile', file, address], {
      stdio: ['ignore', 'pipe', 'pipe'], cwd: dir, timeout: 540_000,
    });
    const [[code, signal], output] = await Promise.all([once(child, 'close'), contents(child.stdout), contents(child.stderr)]);
    assert.equal(signal, null, `the scan took too long:\n${output}`);
    assert.ok(code < 128, `testssl ended with ${code}:\n${output}`); // lower ones count what it could not try
    return JSON.parse(await readFile(file, 'utf8'));
  } finally {
    await rm(dir, {recursive: true});
  }
}

test('a scan of the defaults finds nothing to mend', {timeout: 600_000}, async () => {
  const bridge = await Bridge.start('routes: [{name: r, host: localhost, websocket: {to: "ws://127.0.0.1:9"}}]');
  try {
    const findings = await scan(bridge.wss.replace('wss://127.0.0.1', 'localhost'));
    const ids = new Set(findings.map(f => f.id));
    assert.deepEqual(asked.filter(id => !ids.has(id)), [], 'these were not looked at');
    const ours = findings.filter(f => f.id !== 'engine_problem'); // of the scanner's own OpenSSL
    assert.deepEqual(ours.filter(f => f.severity !== 'OK' && f.severity !== 'INFO'), []);
  } finally {
    await bridge.stop();
  }
});
