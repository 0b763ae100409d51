// The first operation of the Flow in events.json: returns the event that is POSTed to it, or throws if its signature is not right.
// It signs what JSON.stringify makes of the body, which is byte for byte what the workers sent. A Flow's script has no crypto module.
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
const OLDEST_SECONDS = 300
const MOST_SIGNATURES = 10
const MOST_LETTERS = 20000
const SIGNATURE = /^v1,[A-Za-z0-9+/]{43}=$/
const turn = (word, bits) => (word >>> bits) | (word << (32 - bits))
const fraction = (number) => ((number - Math.floor(number)) * 2 ** 32) | 0
const utf8 = (text) => Uint8Array.from(unescape(encodeURIComponent(text)), (sign) => sign.charCodeAt(0))
const joined = (...parts) => Uint8Array.from(parts.flatMap((part) => [...part]))

// FIPS 180-4: its constants are the fractions of the roots of the first primes.
const SQUARE_ROOTS = []
const CUBE_ROOTS = []
for (let number = 2; CUBE_ROOTS.length < 64; number++) {
  let divisor = 2
  while (number % divisor) divisor++
  if (divisor < number) continue
  SQUARE_ROOTS.push(fraction(number ** (1 / 2)))
  CUBE_ROOTS.push(fraction(number ** (1 / 3)))
}

function sha256(message) {
  const padded = new Uint8Array(((message.length + 72) >> 6) << 6)
  const view = new DataView(padded.buffer)
  padded.set(message)
  padded[message.length] = 0x80
  view.setUint32(padded.length - 4, message.length * 8)
  const state = SQUARE_ROOTS.slice(0, 8)
  for (let at = 0; at < padded.length; at += 64) {
    const words = Array.from({ length: 16 }, (_, i) => view.getInt32(at + 4 * i))
    for (let i = 16; i < 64; i++) {
      const x = words[i - 15]
      const y = words[i - 2]
      const sigma = (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10))
      words[i] = (words[i - 16] + words[i - 7] + sigma) | 0
    }
    let [a, b, c, d, e, f, g, h] = state
    for (let i = 0; i < 64; i++) {
      const first = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + CUBE_ROOTS[i] + words[i]) | 0
      const second = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))
      ;[h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0]
    }
    ;[a, b, c, d, e, f, g, h].forEach((word, i) => (state[i] = (state[i] + word) | 0))
  }
  const digest = new DataView(new ArrayBuffer(32))
  state.forEach((word, i) => digest.setInt32(4 * i, word))
  return new Uint8Array(digest.buffer)
}

function hmac(key, message) {
  const block = new Uint8Array(64)
  block.set(key.length > 64 ? sha256(key) : key)
  const inner = sha256(joined(block.map((byte) => byte ^ 0x36), message))
  return sha256(joined(block.map((byte) => byte ^ 0x5c), inner))
}

function decoded(base64) {
  const bits = [...base64.replace(/=+$/, '')].map((sign) => ALPHABET.indexOf(sign).toString(2).padStart(6, '0')).join('')
  return Uint8Array.from(bits.match(/.{8}/g) ?? [], (byte) => parseInt(byte, 2))
}

function equal(one, other) {
  return one.length === other.length && one.reduce((difference, byte, i) => difference | (byte ^ other[i]), 0) === 0
}

module.exports = function ({ $trigger: { headers, body }, $env }) {
  const secret = $env.CHAT_WORKERS_EVENTS_SECRET
  if (!secret?.startsWith('whsec_')) throw new Error('CHAT_WORKERS_EVENTS_SECRET is not set, or not in FLOWS_ENV_ALLOW_LIST')
  // Anybody may call: what costs nothing is looked at first.
  const at = headers['webhook-timestamp']
  if (!(Math.abs(Date.now() / 1000 - at) < OLDEST_SECONDS)) throw new Error('signed too long ago')
  const signatures = (headers['webhook-signature'] ?? '').split(' ').slice(0, MOST_SIGNATURES)
  const text = JSON.stringify(body)
  if (text.length > MOST_LETTERS) throw new Error('longer than any event of the workers')
  if (!signatures.some((signature) => SIGNATURE.test(signature))) throw new Error('not signed')
  const digest = hmac(decoded(secret.slice(6)), utf8(`${headers['webhook-id']}.${at}.${text}`))
  if (!signatures.some((signature) => SIGNATURE.test(signature) && equal(decoded(signature.slice(3)), digest))) {
    throw new Error('not signed by the secret of the workers')
  }
  return body
}
