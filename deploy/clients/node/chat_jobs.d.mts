/** Types of chat_jobs.mjs, for TypeScript: copy it beside that file. What each means stands there. */

/** A call came to nothing. Nothing is lost by it: the workers' sweep finds the rows. */
export declare class JobsError extends Error {}
/** Nobody was told, for now. */
export declare class NotNudgedError extends JobsError {}
/** The request is wrong, and would be the next time. */
export declare class RefusedError extends JobsError {}

export declare class ChatJobs {
  constructor(url: string, token: string | undefined, options?: { milliseconds?: number })
  /** Have the PENDING rows of chat_notifications sent now; resolves to ids of tasks. */
  notifications(): Promise<string[]>
  /** Have 1 to 100 rows of message_attachments scanned now; resolves to ids of tasks. */
  attachments(attachmentIds: readonly (number | bigint | string)[]): Promise<string[]>
  /** Take off phones what was read or deleted; no sweep does it. */
  withdrawals(recipientId: number | bigint | string, conversationId: number | bigint | string): Promise<string[]>
}
