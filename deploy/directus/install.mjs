// Puts the Flow of flow.json, with --events that of events.json, and the tables of tables.json into a Directus over its REST API.
// Run again, it changes nothing.
//
//   DIRECTUS_URL=https://api.example.com DIRECTUS_TOKEN=… node install.mjs [--flow-only] [--events]
//
// DIRECTUS_TOKEN is an administrator's static token. Exit codes: 0 done, 1 Directus refused, 2 bad usage.
// Cut off at any line, it leaves no Flow running by halves: run it again.
import { readFile } from 'node:fs/promises'
import { isDeepStrictEqual } from 'node:util'

const SECONDS = 30
const FOLDER = 'chat_workers'

class Refused extends Error {}

async function api(method, path, body) {
  const response = await fetch(process.env.DIRECTUS_URL.replace(/\/+$/, '') + path, {
    method,
    headers: { Authorization: `Bearer ${process.env.DIRECTUS_TOKEN}`, 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(SECONDS * 1000),
  }).catch((error) => {
    throw new Refused(`${method} ${path} was not answered: ${error.cause?.message ?? error.message}`)
  })
  const answer = await response.json().catch(() => ({}))
  if (!response.ok) {
    const why = answer.errors?.map((error) => error.message).join('; ') ?? response.statusText
    throw new Refused(`${method} ${path} was answered ${response.status}: ${why}`)
  }
  return answer.data
}

/** The one of `id`, or undefined; not read by its path, for Directus answers 403 where there is none. */
async function find(kind, id) {
  return (await api('GET', `/${kind}?limit=1&filter=${encodeURIComponent(JSON.stringify({ id: { _eq: id } }))}`))[0]
}

/** What of `wanted` is not so in `found`. */
function differing(wanted, found) {
  return Object.fromEntries(Object.entries(wanted).filter(([name, value]) => !isDeepStrictEqual(value, found[name])))
}

async function put(kind, wanted) {
  const found = await find(kind, wanted.id)
  if (!found) {
    await api('POST', `/${kind}`, wanted)
    return 'made'
  }
  const changes = differing(wanted, found)
  if (!Object.keys(changes).length) return 'is as it should be'
  await api('PATCH', `/${kind}/${wanted.id}`, changes)
  return `mended (${Object.keys(changes).join(', ')})`
}

/** The Flow is active, and begins with its first operation, only once every operation is there. */
async function installFlow({ flow, operations }) {
  const there = await find('flows', flow.id)
  console.log(`flow ${flow.name}: ${await put('flows', there ? flow : { ...flow, status: 'inactive' })}`)
  for (const operation of operations.toReversed()) {
    console.log(`  operation ${operation.key}: ${await put('operations', { ...operation, flow: flow.id })}`)
  }
  // One that an operator has switched off stays off.
  if (!there?.operation) await api('PATCH', `/flows/${flow.id}`, { operation: operations[0].id, status: 'active' })
  const { status } = await find('flows', flow.id)
  console.log(`  it is ${status}`)
}

function fieldMeta(field, table) {
  const json = table.json?.includes(field.field)
  return {
    note: field.schema?.comment || null,
    readonly: !table.editable?.includes(field.field),
    hidden: table.hidden?.includes(field.field) ?? false,
    ...(field.type === 'boolean' && { special: ['cast-boolean'], interface: 'boolean' }),
    ...(json && { special: ['cast-json'], interface: 'input-code', options: { language: 'json' } }),
  }
}

/** Show a table in the app. What has settings already, ours or an operator's, is left alone; the tables themselves always are. */
async function showTable(name, table, found, listed) {
  const fields = (await api('GET', `/fields/${name}`)).filter((field) => field.meta === null)
  if (fields.length) {
    await api('PATCH', `/fields/${name}`, fields.map((field) => ({ field: field.field, meta: fieldMeta(field, table) })))
  }
  if (!listed) {
    const tabular = { fields: table.columns, sort: table.sort ? [table.sort] : [] }
    await api('POST', '/presets', { collection: name, layout: 'tabular', layout_query: { tabular } })
  }
  const hidden = found.meta === null
  if (hidden) await api('PATCH', `/collections/${name}`, { meta: { icon: table.icon, note: found.schema.comment, group: FOLDER } })
  console.log(`table ${name}: ${hidden || fields.length || !listed ? 'is shown now' : 'is shown'}`)
}

async function installTables(tables) {
  const collections = new Map((await api('GET', '/collections')).map((each) => [each.collection, each]))
  if (!collections.has(FOLDER)) {
    await api('POST', '/collections', {
      collection: FOLDER,
      schema: null,
      meta: { icon: 'engineering', note: 'What the chat workers note down. Only retention policies are for editing.', collapse: 'closed' },
    })
  }
  const forAll = { user: { _null: true }, role: { _null: true }, bookmark: { _null: true } }
  const presets = await api('GET', `/presets?limit=-1&fields=collection&filter=${encodeURIComponent(JSON.stringify(forAll))}`)
  for (const [name, table] of Object.entries(tables)) {
    const found = collections.get(name)
    if (!found) throw new Refused(`Directus sees no table ${name}: run \`chat-workers db migrate\`, then clear its cache or restart it`)
    await showTable(name, table, found, presets.some((preset) => preset.collection === name))
  }
}

const read = async (name) => JSON.parse(await readFile(new URL(name, import.meta.url), 'utf8'))

async function readEvents() {
  const { flow, operations } = await read('events.json')
  const { options } = operations.find((each) => each.type === 'exec')
  options.code = await readFile(new URL(options.code, import.meta.url), 'utf8')
  return { flow, operations }
}

const options = process.argv.slice(2)
const missing = ['DIRECTUS_URL', 'DIRECTUS_TOKEN'].filter((name) => !process.env[name])
if (missing.length || options.some((option) => !['--flow-only', '--events'].includes(option))) {
  console.error(missing.length ? `${missing.join(' and ')} must be set` : 'usage: node install.mjs [--flow-only] [--events]')
  process.exit(2)
}
try {
  await installFlow(await read('flow.json'))
  if (options.includes('--events')) await installFlow(await readEvents())
  if (!options.includes('--flow-only')) await installTables(await read('tables.json'))
} catch (error) {
  if (!(error instanceof Refused)) throw error
  console.error(error.message)
  process.exit(1)
}
