/**
 * Tell the chat workers that there is work: one file to copy into your project. Node 20 or newer, no dependency.
 *
 *     import { ChatJobs, JobsError } from './chat_jobs.mjs'
 *
 *     const jobs = new ChatJobs('http://127.0.0.1:8080', process.env.CHAT_JOBS_TOKEN)
 *     await transaction.commit()          // row first: the workers find it in MySQL
 *     try {
 *       await jobs.notifications()        // after inserting into chat_notifications
 *       await jobs.attachments([12, 13])  // after inserting into message_attachments
 *       await jobs.withdrawals(5, 1)      // after user 5 has read something in conversation 1
 *     } catch (error) {
 *       if (!(error instanceof JobsError)) throw error  // else the user's request goes on:
 *       console.error(`the sweep will do it: ${error.message}`)  // 5 s later (notifications) or 10 s (attachments)
 *     }
 */
import { setTimeout as sleep } from 'node:timers/promises'

/** A call came to nothing. Nothing is lost by it: the workers' sweep finds the rows. Log it, and go on. */
export class JobsError extends Error {}

/** Nobody was told, for now: the gateway or Redis cannot be reached, or has too much to do. */
export class NotNudgedError extends JobsError {}

/** The request is wrong, and would be the next time: the token, the URL or an argument. The text is the gateway's. */
export class RefusedError extends JobsError {}

/** The gateway's client. A call tries again within its `milliseconds`; a job that is started twice by that does no harm. */
export class ChatJobs {
  #url
  #token
  #milliseconds

  /**
   * @param {string} url  the gateway, as in http://127.0.0.1:8080
   * @param {string} token  from `chat-workers gateway token NAME`
   * @param {{ milliseconds?: number }} [options]  the longest that a call may take; 2000
   */
  constructor(url, token, { milliseconds = 2000 } = {}) {
    this.#url = new URL(url).href.replace(/\/+$/, '')
    this.#token = String(token ?? '').trim()
    if (!/^[!-~]+$/.test(this.#token)) {
      throw new TypeError('the token is empty, or holds a blank or a sign that no header can carry')
    }
    this.#milliseconds = milliseconds
  }

  /**
   * Have the PENDING rows of chat_notifications sent now.
   * @returns {Promise<string[]>} ids of tasks
   * @throws {NotNudgedError | RefusedError}
   */
  notifications() {
    return this.#start('notifications', {})
  }

  /**
   * Have 1 to 100 rows of message_attachments scanned now.
   * @param {(number | bigint | string)[]} attachmentIds
   * @returns {Promise<string[]>} ids of tasks
   * @throws {NotNudgedError | RefusedError}
   */
  attachments(attachmentIds) {
    return this.#start('attachments', { attachment_ids: attachmentIds.map(String) })
  }

  /**
   * Take off phones what was read or deleted; no sweep does it.
   * @param {number | bigint | string} recipientId
   * @param {number | bigint | string} conversationId
   * @returns {Promise<string[]>} ids of tasks
   * @throws {NotNudgedError | RefusedError}
   */
  withdrawals(recipientId, conversationId) {
    return this.#start('withdrawals', { recipient_id: String(recipientId), conversation_id: String(conversationId) })
  }

  /**
   * @param {string} job
   * @param {object} body
   * @returns {Promise<string[]>}
   */
  async #start(job, body) {
    const endsAt = performance.now() + this.#milliseconds
    const request = {
      method: 'POST',
      headers: { Authorization: `Bearer ${this.#token}`, 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    }
    for (let pause = 100; ; pause *= 2) {
      const { status, got, answer } = await this.#post(`${this.#url}/v1/jobs/${job}`, request, endsAt)
      const { task_ids: ids, detail } = answer
      if (status === 202 && Array.isArray(ids) && ids.every((id) => typeof id === 'string')) return ids
      const why = `${status || 'no answer'}: ${typeof detail === 'string' ? detail : 'this is no answer of the gateway'}`
      // A 429 with a challenge follows many 401s: the token will be as wrong in a minute.
      const passes = status === 0 || status === 408 || status >= 500 || (status === 429 && !got.has('www-authenticate'))
      if (!passes) throw new RefusedError(why)
      const retryAfter = Number(got.get('retry-after')) || 0
      const wait = Math.max(retryAfter * 1000, pause * (0.5 + Math.random()))
      if (performance.now() + wait >= endsAt) throw new NotNudgedError(why)
      await sleep(wait)
    }
  }

  /**
   * @param {string} url
   * @param {RequestInit} request
   * @param {number} endsAt
   * @returns {Promise<{ status: number, got: Headers, answer: any }>} status 0 if there was no answer
   */
  async #post(url, request, endsAt) {
    try {
      const signal = AbortSignal.timeout(Math.max(50, Math.ceil(endsAt - performance.now())))
      const response = await fetch(url, { ...request, signal })
      const text = await response.text()
      return { status: response.status, got: response.headers, answer: parse(text) }
    } catch (error) {
      const detail = `${error.name}: ${error.cause?.message ?? error.message}`
      return { status: 0, got: new Headers(), answer: { detail } }
    }
  }
}

/**
 * @param {string} text
 * @returns {any} what the text says; {} for a proxy's error page
 */
function parse(text) {
  try {
    return JSON.parse(text) ?? {}
  } catch {
    return {}
  }
}
