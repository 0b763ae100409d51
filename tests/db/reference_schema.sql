CREATE TABLE conversations (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  conversation_id VARCHAR(36) UNIQUE NOT NULL,
  shipment_id INTEGER,
  bid_id INTEGER,
  initiator_id INTEGER NOT NULL,
  receiver_id INTEGER NOT NULL,
  conversation_type ENUM('SHIPMENT', 'GENERAL', 'SUPPORT') DEFAULT 'GENERAL',
  is_active BOOLEAN DEFAULT true,
  total_message_count INTEGER DEFAULT 0,
  last_message_id INTEGER,
  last_message_at TIMESTAMP NULL,
  initiator_archived BOOLEAN DEFAULT false,
  receiver_archived BOOLEAN DEFAULT false,
  is_closed BOOLEAN DEFAULT false,
  closed_reason ENUM('SHIPMENT_COMPLETED', 'MANUAL_CLOSE', 'BLOCKED_USER', 'INACTIVE_30_DAYS'),
  closed_at TIMESTAMP NULL,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,

  -- Foreign Keys
  CONSTRAINT fk_initiator FOREIGN KEY (initiator_id) REFERENCES users(id),
  CONSTRAINT fk_receiver FOREIGN KEY (receiver_id) REFERENCES users(id),
  CONSTRAINT fk_shipment FOREIGN KEY (shipment_id) REFERENCES shipments(id),
  CONSTRAINT fk_bid FOREIGN KEY (bid_id) REFERENCES bids(id),
  CONSTRAINT fk_last_message FOREIGN KEY (last_message_id) REFERENCES messages(id),

  -- Indexes
  INDEX idx_initiator (initiator_id),
  INDEX idx_receiver (receiver_id),
  INDEX idx_last_message_at (last_message_at DESC),
  UNIQUE INDEX idx_participants (initiator_id, receiver_id)
);

CREATE TABLE messages (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  message_id VARCHAR(36) UNIQUE NOT NULL,
  conversation_id INTEGER NOT NULL,
  sender_id INTEGER NOT NULL,
  message_text TEXT,
  message_type ENUM('TEXT', 'IMAGE', 'FILE', 'LOCATION', 'SYSTEM') DEFAULT 'TEXT',
  system_message_type ENUM('USER_JOINED', 'USER_LEFT', 'CONVERSATION_CREATED', 
    'SHIPMENT_ACCEPTED', 'DELIVERY_COMPLETED'),
  edited_at TIMESTAMP NULL,
  edit_count INTEGER DEFAULT 0,
  edit_history JSON,
  is_deleted BOOLEAN DEFAULT false,
  deleted_reason ENUM('USER_REQUEST', 'MODERATION', 'ABUSE', 'SPAM'),
  deleted_by_id INTEGER,
  deleted_at TIMESTAMP NULL,
  reaction_count INTEGER DEFAULT 0,
  has_attachments BOOLEAN DEFAULT false,
  attachment_count INTEGER DEFAULT 0,
  metadata JSON,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,

  -- Foreign Keys
  CONSTRAINT fk_conversation FOREIGN KEY (conversation_id) REFERENCES conversations(id),
  CONSTRAINT fk_sender FOREIGN KEY (sender_id) REFERENCES users(id),
  CONSTRAINT fk_deleted_by FOREIGN KEY (deleted_by_id) REFERENCES users(id),

  -- Indexes
  INDEX idx_conversation (conversation_id),
  INDEX idx_sender (sender_id),
  INDEX idx_created_at (created_at DESC),
  INDEX idx_is_deleted (is_deleted),
  UNIQUE INDEX idx_msg_conversation_time (conversation_id, created_at DESC)
);

CREATE TABLE message_reads (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  message_id INTEGER NOT NULL,
  conversation_id INTEGER NOT NULL,
  reader_id INTEGER NOT NULL,
  status ENUM('SENT', 'DELIVERED', 'READ') DEFAULT 'SENT',
  delivered_at TIMESTAMP NULL,
  read_at TIMESTAMP NULL,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,

  -- Foreign Keys
  CONSTRAINT fk_msg FOREIGN KEY (message_id) REFERENCES messages(id),
  CONSTRAINT fk_conv FOREIGN KEY (conversation_id) REFERENCES conversations(id),
  CONSTRAINT fk_reader FOREIGN KEY (reader_id) REFERENCES users(id),

  -- Indexes
  INDEX idx_message (message_id),
  INDEX idx_reader (reader_id),
  INDEX idx_conversation (conversation_id),
  UNIQUE INDEX idx_msg_reader (message_id, reader_id)
);

CREATE TABLE message_attachments (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  message_id INTEGER NOT NULL,
  file_name VARCHAR(255) NOT NULL,
  file_url VARCHAR(500) NOT NULL,
  file_size INTEGER,
  file_type VARCHAR(50),
  file_extension VARCHAR(10),
  thumbnail_url VARCHAR(500),
  category ENUM('IMAGE', 'DOCUMENT', 'VIDEO', 'AUDIO', 'OTHER'),
  uploaded_by_id INTEGER NOT NULL,
  scanned_for_virus BOOLEAN DEFAULT false,
  is_safe BOOLEAN DEFAULT true,
  download_count INTEGER DEFAULT 0,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,

  -- Foreign Keys
  CONSTRAINT fk_msg_attach FOREIGN KEY (message_id) REFERENCES messages(id),
  CONSTRAINT fk_uploader FOREIGN KEY (uploaded_by_id) REFERENCES users(id),

  -- Indexes
  INDEX idx_message_attach (message_id),
  INDEX idx_uploader (uploaded_by_id)
);

CREATE TABLE message_reactions (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  message_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL,
  reaction_emoji VARCHAR(10) NOT NULL,
  reaction_type ENUM('LIKE', 'LOVE', 'LAUGH', 'SAD', 'ANGRY', 'WOW', 'CUSTOM'),
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,

  -- Foreign Keys
  CONSTRAINT fk_msg_react FOREIGN KEY (message_id) REFERENCES messages(id),
  CONSTRAINT fk_reacting_user FOREIGN KEY (user_id) REFERENCES users(id),

  -- Indexes
  INDEX idx_message_react (message_id),
  INDEX idx_user_react (user_id),
  UNIQUE INDEX idx_user_reaction (message_id, user_id)
);

CREATE TABLE chat_participants (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  conversation_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL,
  role ENUM('INITIATOR', 'RECEIVER', 'ADMIN') DEFAULT 'RECEIVER',
  unread_count INTEGER DEFAULT 0,
  is_muted BOOLEAN DEFAULT false,
  muted_until TIMESTAMP NULL,
  is_blocked BOOLEAN DEFAULT false,
  blocked_at TIMESTAMP NULL,
  last_read_message_id INTEGER,
  last_read_at TIMESTAMP NULL,
  joined_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  left_at TIMESTAMP NULL,
  status ENUM('ACTIVE', 'INACTIVE', 'ARCHIVED', 'BLOCKED') DEFAULT 'ACTIVE',

  -- Foreign Keys
  CONSTRAINT fk_conv_part FOREIGN KEY (conversation_id) REFERENCES conversations(id),
  CONSTRAINT fk_user_part FOREIGN KEY (user_id) REFERENCES users(id),
  CONSTRAINT fk_last_read_msg FOREIGN KEY (last_read_message_id) REFERENCES messages(id),

  -- Indexes
  INDEX idx_conversation_part (conversation_id),
  INDEX idx_user_part (user_id),
  UNIQUE INDEX idx_conv_user (conversation_id, user_id)
);

CREATE TABLE typing_indicators (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  conversation_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL,
  started_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  expires_at TIMESTAMP NOT NULL,

  -- Foreign Keys
  CONSTRAINT fk_conv_typing FOREIGN KEY (conversation_id) REFERENCES conversations(id),
  CONSTRAINT fk_user_typing FOREIGN KEY (user_id) REFERENCES users(id),

  -- Indexes
  INDEX idx_conversation_typing (conversation_id),
  INDEX idx_expires_at (expires_at)
);

CREATE TABLE conversation_settings (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  conversation_id INTEGER NOT NULL,
  user_id INTEGER NOT NULL,
  color_tag ENUM('RED', 'ORANGE', 'YELLOW', 'GREEN', 'BLUE', 'PURPLE'),
  is_starred BOOLEAN DEFAULT false,
  notifications_enabled BOOLEAN DEFAULT true,
  notification_type ENUM('ALL', 'MENTIONS_ONLY', 'NONE') DEFAULT 'ALL',
  desktop_notifications BOOLEAN DEFAULT true,
  mobile_notifications BOOLEAN DEFAULT true,
  sound_enabled BOOLEAN DEFAULT true,
  show_read_receipts BOOLEAN DEFAULT true,
  custom_label VARCHAR(100),
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,

  -- Foreign Keys
  CONSTRAINT fk_conv_settings FOREIGN KEY (conversation_id) REFERENCES conversations(id),
  CONSTRAINT fk_user_settings FOREIGN KEY (user_id) REFERENCES users(id),

  -- Indexes
  INDEX idx_conversation_settings (conversation_id),
  INDEX idx_user_settings (user_id),
  UNIQUE INDEX idx_conv_user_settings (conversation_id, user_id)
);

CREATE TABLE chat_notifications (
  id INTEGER PRIMARY KEY AUTO_INCREMENT,
  conversation_id INTEGER NOT NULL,
  message_id INTEGER NOT NULL,
  recipient_id INTEGER NOT NULL,
  sender_id INTEGER NOT NULL,
  notification_type ENUM('MESSAGE', 'MENTION', 'SYSTEM') DEFAULT 'MESSAGE',
  title VARCHAR(100) NOT NULL,
  body TEXT NOT NULL,
  is_sent BOOLEAN DEFAULT false,
  is_read BOOLEAN DEFAULT false,
  sent_at TIMESTAMP NULL,
  read_at TIMESTAMP NULL,
  device_tokens JSON,
  delivery_status ENUM('PENDING', 'SENT', 'FAILED', 'BOUNCED') DEFAULT 'PENDING',
  error_message TEXT,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,

  -- Foreign Keys
  CONSTRAINT fk_conv_notif FOREIGN KEY (conversation_id) REFERENCES conversations(id),
  CONSTRAINT fk_msg_notif FOREIGN KEY (message_id) REFERENCES messages(id),
  CONSTRAINT fk_recipient FOREIGN KEY (recipient_id) REFERENCES users(id),
  CONSTRAINT fk_sender_notif FOREIGN KEY (sender_id) REFERENCES users(id),

  -- Indexes
  INDEX idx_recipient (recipient_id),
  INDEX idx_conversation_notif (conversation_id),
  INDEX idx_is_read (is_read),
  INDEX idx_delivery_status (delivery_status)
);

-- Get user conversations (most frequent)
CREATE INDEX idx_user_conversations 
  ON conversations(initiator_id, receiver_id)
  WHERE is_active = true AND is_closed = false;

-- Get unread messages (frequent)
CREATE INDEX idx_unread_messages 
  ON message_reads(conversation_id, reader_id, status);

-- Message pagination (frequent)
CREATE INDEX idx_message_pagination 
  ON messages(conversation_id, created_at DESC)
  WHERE is_deleted = false;

-- Active typers (very frequent)
CREATE INDEX idx_active_typers 
  ON typing_indicators(conversation_id, expires_at DESC);

-- User notifications (frequent)
CREATE INDEX idx_user_notifications 
  ON chat_notifications(recipient_id, is_read, created_at DESC);
