// The JSON Schema that the program prints, with a validator and a YAML parser that are not ours. Every mistake that a schema can
// know must fail in it, and nothing that the program takes may.

import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {existsSync, readFileSync, readdirSync} from 'node:fs';
import {join} from 'node:path';
import {test} from 'node:test';
import {fileURLToPath} from 'node:url';
import Ajv from 'ajv/dist/2020.js';
import YAML from 'yaml';

const root = fileURLToPath(new URL('../..', import.meta.url));
const schema = JSON.parse(execFileSync(process.env.BRIDGEHEAD, ['schema'], {encoding: 'utf8'}));
const ajv = new Ajv({allErrors: true, allowUnionTypes: true}); // strict: it knows every keyword
const validate = ajv.compile(schema);

// parse reads a file as editors do, which give the text to the schema's validator; it throws at what is no YAML.
function parse(path) {
  const bytes = readFileSync(path);
  const encoding = bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf-16le' : 'utf-8';
  return YAML.parse(new TextDecoder(encoding, {fatal: true}).decode(bytes), {merge: true, logLevel: 'error'});
}

function files(directory, pattern) {
  const path = join(root, directory);
  if (!existsSync(path)) return [];
  return readdirSync(path, {recursive: true}).filter(name => pattern.test(name)).map(name => join(directory, name));
}

const valid = [
  'config.example.yaml',
  ...files('config/testdata', /^(out|warn)-.*\.yaml$/),
  ...files('docs/recipes', /\.yaml$/),
  ...files('cmd/bridgehead', /\.yaml$/),
];

test('what the program takes is valid', async t => {
  assert.ok(valid.length > 15, `${valid.length} files`);
  for (const name of valid) {
    await t.test(name, () => assert.ok(validate(parse(join(root, name))), ajv.errorsText(validate.errors)));
  }
});

test('the example is valid with every key set', () => {
  const text = readFileSync(join(root, 'config.example.yaml'), 'utf8').replace(/^( *)# /gm, '$1');
  assert.ok(validate(YAML.parse(text)), ajv.errorsText(validate.errors));
});

// What a schema cannot know: the environment, what holds between distant keys, and the grammar of texts.
const beyond = new Set(`
  environment environment-unset environment-dollar-alone
  captures default-listener-without-certificates doubled-route-name listeners-of-route names no-listeners push-for-everybody
  tls-without-certificates upstream-name burst-alone client-header
  colon-in-flow comment-without-space line-break smart-quotes
  host-with-port host-with-scheme networks origin-with-path origin-without-scheme patterns
  path-as-regexp path-pattern-in-the-middle path-without-slash listener-as-url port-as-number port-out-of-range
  hosts-without-certificates no-host-to-certify proxy-protocol-from-nobody resolve
  to-address-alone to-host-alone to-one-slash to-port-out-of-range to-without-port to-without-scheme
`.trim().split(/\s+/));

test('mistakes are not', async t => {
  const mistakes = files('config/testdata', /^err-.*\.yaml$/);
  assert.ok(mistakes.length > 90, `${mistakes.length} files`);
  for (const path of mistakes) {
    const name = path.replace(/^.*err-|\.yaml$/g, '');
    await t.test(name, () => {
      let file;
      try {
        file = parse(join(root, path));
      } catch {
        return; // editors mark it without a schema
      }
      assert.equal(validate(file), beyond.has(name), ajv.errorsText(validate.errors));
      beyond.delete(name);
    });
  }
  assert.deepEqual([...beyond], [], 'names of no file, or of one that is no YAML');
});
