// An attachment may name only a file that was uploaded by who creates or changes it; an administrator's may name any.
export default ({ filter }) => {
  const check = async (payload, _meta, { database, accountability }) => {
    if (payload.file_url === undefined || !accountability || accountability.admin) return payload
    const file = { id: String(payload.file_url).replace(/^\//, ''), uploaded_by: accountability.user ?? '' }
    if (await database('directus_files').where(file).first('id')) return payload
    const error = { name: 'DirectusError', code: 'FORBIDDEN', status: 403, extensions: {} }
    throw Object.assign(new Error('file_url names no file that you uploaded.'), error)
  }
  filter('message_attachments.items.create', check)
  filter('message_attachments.items.update', check)
}
