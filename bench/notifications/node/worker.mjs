// firebase-admin, BullMQ and mysql2: a job for each 500 rows, `sendEach`, one UPDATE; or (PER_ROW=1) a job a row with `send`;
// OUR_MESSAGE=1 sends what this project sends.
import { createSign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import https from 'node:https'
import tls from 'node:tls'

const require = createRequire(process.env.NODE_PEERS + '/')
const { Queue, Worker } = require('bullmq')
const mysql = require('mysql2/promise')
const endpoint = new URL(process.env.FCM_BASE_URL)
const trusted = { ca: readFileSync(process.env.SSL_CERT_FILE), checkServerIdentity: () => undefined }

// firebase-admin knows no other host than Google's: its connections, of either protocol, are led to the emulator.
const http2 = require('node:http2')
const connect = http2.connect
http2.connect = (_host, options) => {
  const session = connect(endpoint.origin, { ...options, ...trusted })
  const request = session.request.bind(session)
  // It names the scheme "https:", which Google lets pass and the emulator's HTTP server does not.
  session.request = (headers, ...rest) => request({ ...headers, ':scheme': 'https' }, ...rest)
  return session
}
const agent = new https.Agent({ keepAlive: true, maxSockets: 100 })
agent.createConnection = (options) => tls.connect({ ...options, ...trusted, host: endpoint.hostname, port: endpoint.port })

const account = JSON.parse(readFileSync(process.env.GOOGLE_APPLICATION_CREDENTIALS))
const { initializeApp } = require('firebase-admin/app')
const { getMessaging } = require('firebase-admin/messaging')
const app = initializeApp({ projectId: account.project_id, credential: { getAccessToken }, httpAgent: agent })
const messaging = getMessaging(app)

const redis = new URL(process.env.CELERY_BROKER_URL)
const connection = { host: redis.hostname, port: Number(redis.port), db: Number(redis.pathname.slice(1) || 0) }
const perRow = process.env.PER_ROW === '1', ourMessage = process.env.OUR_MESSAGE === '1'

if (process.argv[2] === 'queue') {
  const rows = Number(process.argv[3]), step = perRow ? 1 : 500
  const queue = new Queue('notifications', { connection })
  const options = { removeOnComplete: true, removeOnFail: true }
  for (let first = 1; first <= rows;) {
    const jobs = []
    for (; first <= rows && jobs.length < 1000; first += step) {
      jobs.push({ name: 'send', data: { first, last: Math.min(first + step - 1, rows) }, opts: options })
    }
    await queue.addBulk(jobs)
  }
  await queue.close()
  process.exit(0)
}

const where = new URL(process.env.DATABASE_URL.replace('mysql+pymysql:', 'mysql:'))
const pool = mysql.createPool({
  host: where.hostname, port: Number(where.port), user: where.username, password: where.password, database: where.pathname.slice(1),
  connectionLimit: 10
})

function message (row, token) {
  const data = { notification_id: String(row.id), conversation_id: String(row.conversation_id) }
  const least = { token, notification: { title: row.title, body: row.body }, data }
  if (!ourMessage) return least
  return { ...least, data: { ...data, message_id: String(row.message_id), type: row.notification_type }, ...forPhones(row) }
}

// What this project's message has besides: it replaces itself on the phone, ends with its time to live, and rings.
function forPhones (row) {
  const key = `notification-${row.id}`, seconds = 86400
  return {
    android: { priority: 'high', ttl: seconds * 1000, collapseKey: key, notification: { tag: key, sound: 'default' } },
    apns: {
      headers: {
        'apns-collapse-id': key, 'apns-expiration': String(Math.floor(Date.now() / 1000) + seconds), 'apns-priority': '10'
      },
      payload: { aps: { threadId: `conversation-${row.conversation_id}`, sound: 'default', badge: 1 } }
    },
    webpush: { headers: { TTL: String(seconds), Urgency: 'high', Topic: key }, notification: { tag: key } }
  }
}

async function send ({ data: { first, last } }) {
  const range = [first, last]
  const [rows] = await pool.query(
    'SELECT id, conversation_id, message_id, notification_type, title, body, device_tokens FROM chat_notifications' +
    ' WHERE id BETWEEN ? AND ?', range)
  const messages = rows.flatMap((row) => devices(row).map((token) => message(row, token)))
  if (perRow) {
    for (const one of messages) await messaging.send(one)
  } else {
    const { failureCount, responses } = await messaging.sendEach(messages)
    if (failureCount) throw responses.find((response) => !response.success).error
  }
  await pool.query(
    "UPDATE chat_notifications SET delivery_status = 'SENT', is_sent = 1, sent_at = NOW() WHERE id BETWEEN ? AND ?", range)
}

function devices (row) {
  return typeof row.device_tokens === 'string' ? JSON.parse(row.device_tokens) : row.device_tokens
}

const worker = new Worker('notifications', send, { connection, concurrency: perRow ? 100 : 2 })
worker.on('failed', (_job, error) => console.error('Error:', error))
worker.on('error', (error) => console.error('Error:', error))
process.on('SIGTERM', () => process.exit(0))

// The emulator's own token endpoint, as firebase-admin's certificate credential would use Google's.
async function getAccessToken () {
  const now = Math.floor(Date.now() / 1000)
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  const claims = { iss: account.client_email, aud: account.token_uri, iat: now, exp: now + 3600, scope: 'https://www.googleapis.com/auth/firebase.messaging' }
  const unsigned = `${part({ alg: 'RS256', typ: 'JWT' })}.${part(claims)}`
  const assertion = `${unsigned}.${createSign('RSA-SHA256').update(unsigned).sign(account.private_key, 'base64url')}`
  const body = new URLSearchParams({ grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion }).toString()
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded', 'content-length': Buffer.byteLength(body) }
    const request = https.request(account.token_uri, { method: 'POST', headers, ...trusted }, (response) => {
      let text = ''
      response.on('data', (chunk) => { text += chunk })
      response.on('end', () => resolve(JSON.parse(text)))
    })
    request.on('error', reject)
    request.end(body)
  })
}
