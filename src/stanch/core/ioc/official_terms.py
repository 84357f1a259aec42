"""The official terms of OpenIOC: names and platforms only.

Facts from `current.iocterms` of 2020-11-06 in the repository OpenIOC_1.1, copyright 2013 Mandiant Corporation, under
the Apache License 2.0: 1,327 entries, of which 7 are there twice. Put here in a form of our own.
"""

TERMS = """
AgentInfo w CleanDBEtag DtiExclusionsEtag ExdPlugin/content-rules/version ExdPlugin/content-whitelist/version
  ExdPlugin/engine/version ExdPlugin/version ExdPluginStatus ExDRuleEtag ExDWhiteListEtag HxExclusionEtag intelHash
  malware-guard/content/version malware-guard/engine/version malware/av/content/updated malware/av/content/version
  malware/av/engine/version malware/config/av/quarantine/status malware/config/av/status
  malware/config/mg/quarantine/status malware/config/mg/status malware/DTIExclusionsContentVersion
  malware/DTIExclusionsSchemaVersion malware/mg/content/updated malware/mg/content/version malware/mg/engine/version
  malware/QuarantineStatus malware/UserFPExclusionsContentVersion malware/UserFPExclusionsSchemaVersion
  malware/version MalwareProtectionStatus MgEtag ProRemSvcStatus
AgentInfo wml appCreated appStarted appVersion configChannel configETag configId containmentState
  containmentWhitelistArray/ip EventorStatus FIPS intelETag intelTimestamp KernelServices/Status lastMsgMarker
  ProcessTracker/augmentationErrors ProcessTracker/avgQueueTimeMs ProcessTracker/avgRunTimeMs
  ProcessTracker/excludedAgentProcs ProcessTracker/excludedFilePatterns ProcessTracker/excludedProcessPaths
  ProcessTracker/lastDBResetTimestamp ProcessTracker/lastEventTimestamp ProcessTracker/lastMessageTimestamp
  ProcessTracker/maxQueueDepth ProcessTracker/maxQueueTimeMs ProcessTracker/maxRunTimeMs ProcessTracker/minQueueTimeMs
  ProcessTracker/minRunTimeMs ProcessTracker/operational ProcessTracker/processEventCount ProcessTracker/queueDepth
  ProcessTracker/queueTimeStdDevMs ProcessTracker/runTimeStdDevMs ProcessTracker/store
  ProcessTracker/uniqueProcessCount ProcessTracker/version ProcessTrackerStatus proxyHost proxyPort proxyType
  proxyUsername stateAgentStatus
ArpEntryItem w LastReachable LastUnreachable
ArpEntryItem wm IPv6Address IsRouter State
ArpEntryItem wml CacheType Interface InterfaceType IPv4Address PhysicalAddress
ConfigInfo wml ConfigItem/key ConfigItem/val
CookieHistoryItem m LastVisitDate
CookieHistoryItem w CookieFlags FileName FilePath LastModifiedDate
CookieHistoryItem wm BrowserName BrowserVersion CookieName CookiePath CookieValue CreationDate ExpirationDate HostName
  IsHTTPOnly IsHttpOnly IsSecure LastAccessedDate Profile Username
DiskItem ml DevicePath DiskConnection Type
DiskItem wml DiskName DiskSize PartitionList/Partition/PartitionLength PartitionList/Partition/PartitionNumber
  PartitionList/Partition/PartitionOffset PartitionList/Partition/PartitionType
DnsEntryItem m RecordData/Data
DnsEntryItem w Flags RecordData/AddressType RecordData/Algorithm RecordData/ATMAddress RecordData/Bitmask
  RecordData/Blob RecordData/CacheTimeout RecordData/CreationDate RecordData/DateSigned RecordData/Digest
  RecordData/DigestLength RecordData/DigestType RecordData/Error RecordData/ExpirationDate RecordData/Flags
  RecordData/FudgeTime RecordData/Key RecordData/KeyFlags RecordData/KeyLength RecordData/KeyName RecordData/KeyTag
  RecordData/LabelCount RecordData/LookupTimeout RecordData/MailboxErrorsName RecordData/MailboxName
  RecordData/MappingFlag RecordData/Mode RecordData/MxHost RecordData/NextHost RecordData/Order
  RecordData/OriginalTimeToLive RecordData/OriginalXid RecordData/Port RecordData/Preference RecordData/Priority
  RecordData/Protocol RecordData/PublicKey RecordData/RegularExpression RecordData/Replacement RecordData/Services
  RecordData/Signature RecordData/SignatureLength RecordData/Signer RecordData/TargetHost RecordData/Type
  RecordData/TypeCovered RecordData/Weight RecordData/WinsServerIPv4Address
DnsEntryItem wm DataLength Host RecordData/AdministratorName RecordData/DefaultTimeToLive RecordData/Expire
  RecordData/Host RecordData/IPv4Address RecordData/IPv6Address RecordData/PrimaryServerName RecordData/Refresh
  RecordData/Retry RecordData/SerialNumber RecordData/String RecordName RecordType TimeToLive
DriverItem w CertificateIssuer CertificateSubject DeviceItem/AttachedDeviceName DeviceItem/AttachedDeviceObject
  DeviceItem/AttachedDriverName DeviceItem/AttachedDriverObject DeviceItem/AttachedToDeviceName
  DeviceItem/AttachedToDeviceObject DeviceItem/AttachedToDriverName DeviceItem/AttachedToDriverObject
  DeviceItem/DeviceName DeviceItem/DeviceObject DeviceItem/DriverName DriverInit DriverName DriverObjectAddress
  DriverStartIo DriverUnload ImageBase ImageSize IRP_MJ_CLEANUP IRP_MJ_CLOSE IRP_MJ_CREATE IRP_MJ_CREATE_MAILSLOT
  IRP_MJ_CREATE_NAMED_PIPE IRP_MJ_DEVICE_CHANGE IRP_MJ_DEVICE_CONTROL IRP_MJ_DIRECTORY_CONTROL
  IRP_MJ_FILE_SYSTEM_CONTROL IRP_MJ_FLUSH_BUFFERS IRP_MJ_INTERNAL_DEVICE_CONTROL IRP_MJ_LOCK_CONTROL IRP_MJ_PNP
  IRP_MJ_POWER IRP_MJ_QUERY_EA IRP_MJ_QUERY_INFORMATION IRP_MJ_QUERY_QUOTA IRP_MJ_QUERY_SECURITY
  IRP_MJ_QUERY_VOLUME_INFORMATION IRP_MJ_READ IRP_MJ_SET_EA IRP_MJ_SET_INFORMATION IRP_MJ_SET_QUOTA
  IRP_MJ_SET_SECURITY IRP_MJ_SET_VOLUME_INFORMATION IRP_MJ_SHUTDOWN IRP_MJ_SYSTEM_CONTROL IRP_MJ_WRITE Md5sum
  PEInfo/BaseAddress PEInfo/DetectedAnomalies/string PEInfo/DetectedEntryPointSignature/Name
  PEInfo/DetectedEntryPointSignature/Type PEInfo/DigitalSignature/CertificateIssuer
  PEInfo/DigitalSignature/CertificateSubject PEInfo/DigitalSignature/Description
  PEInfo/DigitalSignature/SignatureExists PEInfo/DigitalSignature/SignatureVerified PEInfo/EpJumpCodes/Depth
  PEInfo/EpJumpCodes/Opcodes PEInfo/Exports/DllName PEInfo/Exports/ExportedFunctions/string
  PEInfo/Exports/ExportsTimeStamp PEInfo/Exports/NumberOfFunctions PEInfo/Exports/NumberOfNames PEInfo/ExtraneousBytes
  PEInfo/ImportedModules/Module/ImportedFunctions/string PEInfo/ImportedModules/Module/Name
  PEInfo/ImportedModules/Module/NumberOfFunctions PEInfo/PEChecksum/PEComputedAPI PEInfo/PEChecksum/PEFileAPI
  PEInfo/PEChecksum/PEFileRaw PEInfo/PETimeStamp PEInfo/Sections/Section/DetectedCharacteristics
  PEInfo/Sections/Section/DetectedSignatureKeys/string PEInfo/Sections/Section/Entropy/CurveData/float
  PEInfo/Sections/Section/Name PEInfo/Sections/Section/SizeInBytes PEInfo/Sections/Section/Type PEInfo/Subsystem
  PEInfo/Type Sha1sum Sha256sum SignatureDescription SignatureExists SignatureVerified StringList/string
Email - Attachment/Content Attachment/MIMEType Attachment/Name Attachment/SizeInBytes AttachmentCount BCC Body CC
  Content-Type Date From In-Reply-To MIME-Version Received ReceivedFromHost ReceivedFromIP References Return-Path
  Subject Thread-Index Thread-Topic To X-filenames X-filesizes X-filetypes X-MS-Has-Attach
eventItem w fileWriteEvent/dataAtLowestOffset fileWriteEvent/drive fileWriteEvent/eventReason
  fileWriteEvent/lowestFileOffsetSeen fileWriteEvent/numBytesSeenWritten fileWriteEvent/openDuration
  fileWriteEvent/openTime fileWriteEvent/parentPid fileWriteEvent/parentProcessPath fileWriteEvent/textAtLowestOffset
  fileWriteEvent/writes imageLoadEvent/drive regKeyEvent/eventType regKeyEvent/hive regKeyEvent/keyPath
  regKeyEvent/originalPath regKeyEvent/path regKeyEvent/pid regKeyEvent/process regKeyEvent/processPath
  regKeyEvent/text regKeyEvent/timestamp regKeyEvent/username regKeyEvent/value regKeyEvent/valueName
  regKeyEvent/valueType
eventItem wm addressNotificationEvent/address addressNotificationEvent/timestamp dnsLookupEvent/hostname
  dnsLookupEvent/pid dnsLookupEvent/process dnsLookupEvent/processPath dnsLookupEvent/timestamp
  dnsLookupEvent/username fileWriteEvent/closed fileWriteEvent/devicePath fileWriteEvent/fileExtension
  fileWriteEvent/fileName fileWriteEvent/filePath fileWriteEvent/fullPath fileWriteEvent/md5 fileWriteEvent/pid
  fileWriteEvent/process fileWriteEvent/processPath fileWriteEvent/size fileWriteEvent/timestamp
  fileWriteEvent/username imageLoadEvent/devicePath imageLoadEvent/fileExtension imageLoadEvent/fileName
  imageLoadEvent/filePath imageLoadEvent/fullPath imageLoadEvent/parentPid imageLoadEvent/pid imageLoadEvent/process
  imageLoadEvent/processPath imageLoadEvent/timestamp imageLoadEvent/username urlMonitorEvent/hostname
  urlMonitorEvent/httpHeader urlMonitorEvent/localPort urlMonitorEvent/pid urlMonitorEvent/process
  urlMonitorEvent/processPath urlMonitorEvent/remoteIpAddress urlMonitorEvent/remotePort urlMonitorEvent/requestUrl
  urlMonitorEvent/timestamp urlMonitorEvent/urlMethod urlMonitorEvent/userAgent urlMonitorEvent/username
eventItem wml details/detail/name details/detail/value eventType ipv4NetworkEvent/localIP ipv4NetworkEvent/localPort
  ipv4NetworkEvent/pid ipv4NetworkEvent/process ipv4NetworkEvent/processPath ipv4NetworkEvent/protocol
  ipv4NetworkEvent/remoteIP ipv4NetworkEvent/remotePort ipv4NetworkEvent/timestamp ipv4NetworkEvent/username
  processEvent/eventType processEvent/md5 processEvent/parentPid processEvent/parentProcess
  processEvent/parentProcessPath processEvent/pid processEvent/process processEvent/processCmdLine
  processEvent/processPath processEvent/startTime processEvent/timestamp processEvent/username sequence_num timestamp
  uid
EventLogItem w blob category categoryNum CorrelationActivityId CorrelationRelatedActivityId EID ExecutionProcessId
  ExecutionThreadId genTime index log machine message reserved source type unformattedMessage/string user writeTime
FileDownloadHistoryItem w AutoResume CacheFlags CacheHitCount FullHttpHeader LastAccessedDate LastCacheSynchDate
  LastCheckedDate LastModifiedDate MimeType TemporaryPath
FileDownloadHistoryItem wm BrowserName BrowserVersion BytesDownloaded DownloadType EndDate FileName MaxBytes Profile
  Referrer SourceURL StartDate State TargetDirectory Username
FileItem m DigitalSignature/CertificateChain DigitalSignature/CertificateIssuer DigitalSignature/CertificateSubject
  DigitalSignature/Description DigitalSignature/SignatureExists DigitalSignature/SignatureVerified
FileItem ml Group GroupID Permissions StringMatchList/StringMatch/MatchedString
  StringMatchList/StringMatch/StringsAfter/string StringMatchList/StringMatch/StringsBefore/string
FileItem w detectedAnomaly DevicePath Drive FilenameAccessed FilenameChanged FilenameCreated FilenameModified INode
  PeakCodeEntropy PeakEntropy PEInfo/BaseAddress PEInfo/DetectedAnomalies/string
  PEInfo/DetectedEntryPointSignature/Name PEInfo/DetectedEntryPointSignature/Type
  PEInfo/DigitalSignature/CertificateChain PEInfo/DigitalSignature/CertificateIssuer
  PEInfo/DigitalSignature/CertificateSubject PEInfo/DigitalSignature/Description
  PEInfo/DigitalSignature/SignatureExists PEInfo/DigitalSignature/SignatureVerified PEInfo/EpJumpCodes/Depth
  PEInfo/EpJumpCodes/Opcodes PEInfo/Exports/DllName PEInfo/Exports/ExportedFunctions/string
  PEInfo/Exports/ExportsTimeStamp PEInfo/Exports/NumberOfFunctions PEInfo/Exports/NumberOfNames PEInfo/ExtraneousBytes
  PEInfo/ImportedModules/Module/ImportedFunctions/string PEInfo/ImportedModules/Module/Name
  PEInfo/ImportedModules/Module/NumberOfFunctions PEInfo/PEChecksum/PEComputedAPI PEInfo/PEChecksum/PEFileAPI
  PEInfo/PEChecksum/PEFileRaw PEInfo/PETimeStamp PEInfo/ResourceInfoList/ResourceInfoItem/Data
  PEInfo/ResourceInfoList/ResourceInfoItem/Language PEInfo/ResourceInfoList/ResourceInfoItem/Name
  PEInfo/ResourceInfoList/ResourceInfoItem/Size PEInfo/ResourceInfoList/ResourceInfoItem/Type
  PEInfo/Sections/ActualNumberOfSections PEInfo/Sections/NumberOfSections
  PEInfo/Sections/Section/DetectedCharacteristics PEInfo/Sections/Section/DetectedSignatureKeys/string
  PEInfo/Sections/Section/Entropy/AverageValue PEInfo/Sections/Section/Entropy/CurveData/float
  PEInfo/Sections/Section/Name PEInfo/Sections/Section/SizeInBytes PEInfo/Sections/Section/Type PEInfo/Subsystem
  PEInfo/Type PEInfo/VersionInfoList/VersionInfoItem/Comments PEInfo/VersionInfoList/VersionInfoItem/CompanyName
  PEInfo/VersionInfoList/VersionInfoItem/FileDescription PEInfo/VersionInfoList/VersionInfoItem/FileVersion
  PEInfo/VersionInfoList/VersionInfoItem/InternalName PEInfo/VersionInfoList/VersionInfoItem/Language
  PEInfo/VersionInfoList/VersionInfoItem/LegalCopyright PEInfo/VersionInfoList/VersionInfoItem/LegalTrademarks
  PEInfo/VersionInfoList/VersionInfoItem/OriginalFilename PEInfo/VersionInfoList/VersionInfoItem/PrivateBuild
  PEInfo/VersionInfoList/VersionInfoItem/ProductName PEInfo/VersionInfoList/VersionInfoItem/ProductVersion
  PEInfo/VersionInfoList/VersionInfoItem/SpecialBuild SecurityType StreamList/Stream/Md5sum StreamList/Stream/Name
  StreamList/Stream/Sha1sum StreamList/Stream/Sha256sum StreamList/Stream/SizeInBytes
FileItem wml Accessed Changed Created FileAttributes FileExtension FileName FilePath FullPath Md5sum Modified
  SecurityID Sha1sum Sha256sum SizeInBytes StringList/string Username
FormHistoryItem m EncryptedUsername PasswordChangedDate
FormHistoryItem wm BrowserName BrowserVersion CreationDate EncryptedPassword EncryptionType FirstUsedDate
  FormFieldName FormFieldValue FormSubmitURL FormType Guid HostName HttpRealm LastUsedDate PasswordFieldName Profile
  TimesUsed Username UsernameFieldName UsernameFieldValue
GroupItem l gid
GroupItem m fullname groupguid
GroupItem ml GroupName userlist/username
HiveItem w Name Path
HookItem w DigitalSignatureHooked/CertificateIssuer DigitalSignatureHooked/CertificateSubject
  DigitalSignatureHooked/Description DigitalSignatureHooked/SignatureExists DigitalSignatureHooked/SignatureVerified
  DigitalSignatureHooking/CertificateIssuer DigitalSignatureHooking/CertificateSubject
  DigitalSignatureHooking/Description DigitalSignatureHooking/SignatureExists
  DigitalSignatureHooking/SignatureVerified HookDescription HookedFunction HookedModule HookingAddress HookingModule
Log wml args/arg flags fn hr lid ln lvl msg pid process_name tid time uid
LoginHistoryItem l EndTime Hostname IPv4Address IPv6Address IsFailedLogin IsRemoteLogin Path PID RecordType
  SessionLength StartTime Terminal Username
ModuleItem l Address AliasList/Alias/Name DependsList/Depends/Module Filename Intree License Md5sum Module
  ParmList/Parm/Name Retpoline Sha1sum Sha256sum SigHashAlgorithm SigKey Signat Signer Size SrcVersion Status
  UsedByList/Module Vermagic
ModuleItem w ModuleAddress ModuleBase ModuleInit ModuleName ModulePath ModuleSize
Network - DNS HTTP_Referrer String URI UserAgent
PersistenceItem m alias DigitalSignature/CertificateChain DigitalSignature/CertificateIssuer
  DigitalSignature/CertificateSubject DigitalSignature/Description DigitalSignature/SignatureExists
  DigitalSignature/SignatureVerified disabled groupName keepAlive name path pathAttributes/accessedTime
  pathAttributes/changedTime pathAttributes/createdTime pathAttributes/group pathAttributes/md5sum
  pathAttributes/modifiedTime pathAttributes/owner pathAttributes/sha1sum pathAttributes/sha256sum pathAttributes/size
  reference type userName
PersistenceItem w CertificateIssuer CertificateSubject descriptiveName detectedAnomaly FileAccessed FileChanged
  FileCreated FileItem/Accessed FileItem/Changed FileItem/Created FileItem/detectedAnomaly FileItem/DevicePath
  FileItem/Drive FileItem/Entry FileItem/FileAttributes FileItem/FileExtension FileItem/FileName
  FileItem/FilenameAccessed FileItem/FilenameChanged FileItem/FilenameCreated FileItem/FilenameModified
  FileItem/FilePath FileItem/FullPath FileItem/INode FileItem/Md5sum FileItem/Modified FileItem/PeakCodeEntropy
  FileItem/PeakEntropy FileItem/PEInfo/BaseAddress FileItem/PEInfo/DetectedAnomalies/string
  FileItem/PEInfo/DetectedEntryPointSignature/Name FileItem/PEInfo/DetectedEntryPointSignature/Type
  FileItem/PEInfo/DigitalSignature/CertificateIssuer FileItem/PEInfo/DigitalSignature/CertificateSubject
  FileItem/PEInfo/DigitalSignature/Description FileItem/PEInfo/DigitalSignature/SignatureExists
  FileItem/PEInfo/DigitalSignature/SignatureVerified FileItem/PEInfo/EpJumpCodes/Depth
  FileItem/PEInfo/EpJumpCodes/Opcodes FileItem/PEInfo/Exports/DllName FileItem/PEInfo/Exports/ExportedFunctions/string
  FileItem/PEInfo/Exports/ExportsTimeStamp FileItem/PEInfo/Exports/NumberOfFunctions
  FileItem/PEInfo/Exports/NumberOfNames FileItem/PEInfo/ExtraneousBytes
  FileItem/PEInfo/ImportedModules/Module/ImportedFunctions/string FileItem/PEInfo/ImportedModules/Module/Name
  FileItem/PEInfo/ImportedModules/Module/NumberOfFunctions FileItem/PEInfo/PEChecksum/PEComputedAPI
  FileItem/PEInfo/PEChecksum/PEFileAPI FileItem/PEInfo/PEChecksum/PEFileRaw FileItem/PEInfo/PETimeStamp
  FileItem/PEInfo/ResourceInfoList/ResourceInfoItem/Language FileItem/PEInfo/ResourceInfoList/ResourceInfoItem/Name
  FileItem/PEInfo/ResourceInfoList/ResourceInfoItem/Size FileItem/PEInfo/ResourceInfoList/ResourceInfoItem/Type
  FileItem/PEInfo/Sections/ActualNumberOfSections FileItem/PEInfo/Sections/NumberOfSections
  FileItem/PEInfo/Sections/Section/DetectedCharacteristics
  FileItem/PEInfo/Sections/Section/DetectedSignatureKeys/string FileItem/PEInfo/Sections/Section/Entropy/AverageValue
  FileItem/PEInfo/Sections/Section/Name FileItem/PEInfo/Sections/Section/SizeInBytes
  FileItem/PEInfo/Sections/Section/Type FileItem/PEInfo/Subsystem FileItem/PEInfo/Type
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/Comments FileItem/PEInfo/VersionInfoList/VersionInfoItem/CompanyName
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/FileDescription
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/FileVersion
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/InternalName
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/Language
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/LegalCopyright
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/LegalTrademarks
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/OriginalFilename
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/PrivateBuild
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/ProductName
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/ProductVersion
  FileItem/PEInfo/VersionInfoList/VersionInfoItem/SpecialBuild FileItem/SecurityID FileItem/SecurityType
  FileItem/Sha1sum FileItem/Sha256sum FileItem/SizeInBytes FileItem/StreamList/Stream/Md5sum
  FileItem/StreamList/Stream/Name FileItem/StreamList/Stream/Sha1sum FileItem/StreamList/Stream/Sha256sum
  FileItem/StreamList/Stream/SizeInBytes FileItem/Username FileModified FileOwner FilePath LinkFilePath md5sum mode
  pathCertificateIssuer pathCertificateSubject pathmd5sum pathsha1sum pathsha256sum pathSignatureDescription
  pathSignatureExists pathSignatureVerified PersistenceType RegContext RegistryItem/detectedAnomaly RegistryItem/Hive
  RegistryItem/KeyPath RegistryItem/Modified RegistryItem/NumSubKeys RegistryItem/NumValues RegistryItem/Path
  RegistryItem/ReportedLengthInBytes RegistryItem/SecurityID RegistryItem/Text RegistryItem/Type RegistryItem/Username
  RegistryItem/Value RegistryItem/ValueName RegModified RegOwner RegPath RegText RegValue serviceDLL
  serviceDLLCertificateIssuer serviceDLLCertificateSubject serviceDLLmd5sum serviceDLLsha1sum serviceDLLsha256sum
  serviceDLLSignatureDescription serviceDLLSignatureExists serviceDLLSignatureVerified ServiceItem/arguments
  ServiceItem/description ServiceItem/descriptiveName ServiceItem/detectedAnomaly ServiceItem/mode ServiceItem/name
  ServiceItem/path ServiceItem/pathCertificateIssuer ServiceItem/pathCertificateSubject ServiceItem/pathmd5sum
  ServiceItem/pathsha1sum ServiceItem/pathsha256sum ServiceItem/pathSignatureDescription
  ServiceItem/pathSignatureExists ServiceItem/pathSignatureVerified ServiceItem/pid ServiceItem/serviceDLL
  ServiceItem/serviceDLLCertificateIssuer ServiceItem/serviceDLLCertificateSubject ServiceItem/serviceDLLmd5sum
  ServiceItem/serviceDLLsha1sum ServiceItem/serviceDLLsha256sum ServiceItem/serviceDLLSignatureDescription
  ServiceItem/serviceDLLSignatureExists ServiceItem/serviceDLLSignatureVerified ServiceItem/startedAs
  ServiceItem/status ServiceItem/type ServiceName ServicePath sha1sum sha256sum SignatureDescription SignatureExists
  SignatureVerified startedAs status
PersistenceItem wm arguments
PortItem w CreationTime
PortItem wml isIPv6 localIP localPort path pid process protocol remoteIP remotePort state
PrefetchItem w AccessedFileList/AccessedFile ApplicationFileName ApplicationFullPath Created FullPath LastRun
  PrefetchHash ReportedSizeInBytes SizeInBytes TimesExecuted VolumeList/VolumeItem/CreationTime
  VolumeList/VolumeItem/DevicePath VolumeList/VolumeItem/SerialNumber
ProcessItem l HandleList/Handle/Device HandleList/Handle/FileDescriptor HandleList/Handle/INode
  HandleList/Handle/Md5sum HandleList/Handle/Sha1sum HandleList/Handle/Sha256sum HandleList/Handle/Size
  HandleList/Handle/SocketLocalAddress HandleList/Handle/SocketLocalPort HandleList/Handle/SocketProtocol
  HandleList/Handle/SocketRemoteAddress HandleList/Handle/SocketRemotePort HandleList/Handle/SocketState
  HandleList/Handle/SocketType HandleList/Handle/User
ProcessItem w detectedAnomaly HandleList/Handle/AccessMask HandleList/Handle/HandleCount HandleList/Handle/Index
  HandleList/Handle/ObjectAddress HandleList/Handle/PointerCount hidden PortList/PortItem/CreationTime
  PortList/PortItem/localIP PortList/PortItem/localPort PortList/PortItem/path PortList/PortItem/pid
  PortList/PortItem/process PortList/PortItem/protocol PortList/PortItem/remoteIP PortList/PortItem/remotePort
  PortList/PortItem/state SectionList/MemorySection/DigitalSignature/CertificateIssuer
  SectionList/MemorySection/DigitalSignature/CertificateSubject SectionList/MemorySection/DigitalSignature/Description
  SectionList/MemorySection/DigitalSignature/SignatureExists
  SectionList/MemorySection/DigitalSignature/SignatureVerified SectionList/MemorySection/Injected
  SectionList/MemorySection/Mapped SectionList/MemorySection/Md5sum SectionList/MemorySection/MemD5
  SectionList/MemorySection/Name SectionList/MemorySection/PEInfo/BaseAddress
  SectionList/MemorySection/PEInfo/DetectedAnomalies/string
  SectionList/MemorySection/PEInfo/DetectedEntryPointSignature/Name
  SectionList/MemorySection/PEInfo/DetectedEntryPointSignature/Type
  SectionList/MemorySection/PEInfo/DigitalSignature/CertificateIssuer
  SectionList/MemorySection/PEInfo/DigitalSignature/CertificateSubject
  SectionList/MemorySection/PEInfo/DigitalSignature/Description
  SectionList/MemorySection/PEInfo/DigitalSignature/SignatureExists
  SectionList/MemorySection/PEInfo/DigitalSignature/SignatureVerified
  SectionList/MemorySection/PEInfo/EpJumpCodes/Depth SectionList/MemorySection/PEInfo/EpJumpCodes/Opcodes
  SectionList/MemorySection/PEInfo/Exports/DllName SectionList/MemorySection/PEInfo/Exports/ExportedFunctions/string
  SectionList/MemorySection/PEInfo/Exports/ExportsTimeStamp SectionList/MemorySection/PEInfo/Exports/NumberOfFunctions
  SectionList/MemorySection/PEInfo/Exports/NumberOfNames SectionList/MemorySection/PEInfo/ExtraneousBytes
  SectionList/MemorySection/PEInfo/ImportedModules/Module/ImportedFunctions/string
  SectionList/MemorySection/PEInfo/ImportedModules/Module/Name
  SectionList/MemorySection/PEInfo/ImportedModules/Module/NumberOfFunctions
  SectionList/MemorySection/PEInfo/PEChecksum/PEComputedAPI SectionList/MemorySection/PEInfo/PEChecksum/PEFileAPI
  SectionList/MemorySection/PEInfo/PEChecksum/PEFileRaw SectionList/MemorySection/PEInfo/PETimeStamp
  SectionList/MemorySection/PEInfo/Sections/Section/DetectedCharacteristics
  SectionList/MemorySection/PEInfo/Sections/Section/DetectedSignatureKeys/string
  SectionList/MemorySection/PEInfo/Sections/Section/Entropy/CurveData/float
  SectionList/MemorySection/PEInfo/Sections/Section/Name SectionList/MemorySection/PEInfo/Sections/Section/SizeInBytes
  SectionList/MemorySection/PEInfo/Sections/Section/Type SectionList/MemorySection/PEInfo/Subsystem
  SectionList/MemorySection/PEInfo/Type SectionList/MemorySection/Protection SectionList/MemorySection/RawFlags
  SectionList/MemorySection/RegionSize SectionList/MemorySection/RegionStart SectionList/MemorySection/Sha1sum
  SectionList/MemorySection/Sha256sum SecurityID SecurityType StringList/string
ProcessItem wl HandleList/Handle/Name HandleList/Handle/Type
ProcessItem wml arguments kernelTime name parentpid path pid startTime Username userTime
QuarantineEventItem m AgentBundleIdentifier AgentName DataURLString EventIdentifier OriginTitle OriginURLString
  SenderAddress SenderName TimeStamp TypeNumber User
QuarantineListItem wm CorrelationId FileMD5 FilePath FileSHA1 FileSize FileState Final ObjectType QuarantineTime
  QuarId
RegistryItem w detectedAnomaly Hive KeyPath Modified NumSubKeys NumValues Path ReportedLengthInBytes SecurityID Text
  Type Username Value ValueName
RouteEntryItem l Flags MTU
RouteEntryItem w IsAutoconfigureAddress IsImmortal IsLoopback IsPublish Metric Origin PreferredLifetime Protocol
  RouteAge ValidLifetime
RouteEntryItem wl RouteType
RouteEntryItem wm IsIPv6
RouteEntryItem wml Destination Gateway Interface Netmask
ScanSummary m actioned-object content-version end-time engine-version infected-object product-version reboot-required
  scan-correlation-id scan-error scan-name scan-result scan-summary-version scan-type scanned-object start-time
  timestamp uuid
ServiceItem m DigitalSignature/CertificateChain DigitalSignature/CertificateIssuer DigitalSignature/CertificateSubject
  DigitalSignature/Description DigitalSignature/SignatureExists DigitalSignature/SignatureVerified groupName
  machServices/machService md5sum reference sha1sum sha256sum userName
ServiceItem w description descriptiveName pathCertificateChain pathCertificateIssuer pathCertificateSubject pathmd5sum
  pathsha1sum pathsha256sum pathSignatureDescription pathSignatureExists pathSignatureVerified serviceDLL
  serviceDLLCertificateIssuer serviceDLLCertificateSubject serviceDLLmd5sum serviceDLLsha1sum serviceDLLsha256sum
  serviceDLLSignatureDescription serviceDLLSignatureExists serviceDLLSignatureVerified startedAs
ServiceItem wm arguments mode name path pid status type
ShellHistoryItem l Command FileOrder Shell Timestamp UserName
Snort - Snort
SudoLogItem l command ModifiedTimestamp pwd SourceLog success suOrSudo timestamp tty userExecuteAs username
Syslog l Date LogFile LogFileModified
Syslog m Facility GID ID Level Time UID
Syslog ml Host Message PID Sender
SystemInfoItem l kernelVersion
SystemInfoItem m version
SystemInfoItem w biosInfo/biosDate biosInfo/biosType biosInfo/biosVersion directory drives
  networkArray/networkInfo/description procConfigInfo/iommu procConfigInfo/lpcDevice procType regOrg regOwner
SystemInfoItem wl networkArray/networkInfo/dhcpServerArray/dhcpServer
SystemInfoItem wm buildNumber containmentWhitelistArray/ip patchLevel productID
SystemInfoItem wml appCreated appVersion availphysical clockSkew containmentState date domain gmtoffset hostname
  installDate loggedOnUser MAC machine networkArray/networkInfo/adapter networkArray/networkInfo/dhcpLeaseExpires
  networkArray/networkInfo/dhcpLeaseObtained networkArray/networkInfo/ipArray/ipInfo/ipAddress
  networkArray/networkInfo/ipArray/ipInfo/ipv6Address networkArray/networkInfo/ipArray/ipInfo/subnetMask
  networkArray/networkInfo/ipGatewayArray/ipGateway networkArray/networkInfo/MAC OS OSbitness platform
  primaryIpAddress primaryIpv4Address primaryIpv6Address procConfigInfo/virtualization procConfigInfo/vmGuest
  processor productName stateAgentStatus timezone timezoneDST timezoneStandard totalphysical uptime user
SystemRestoreItem w AclChangeSecurityID AclChangeUsername BackupFileName ChangeEvent ChangeLogEntryFlags
  ChangeLogEntrySequenceNumber ChangeLogEntryType ChangeLogFileName Created DebugInfoProcessId DebugInfoProcessName
  DebugInfoThreadId DebugInfoTimeStamp FileAttributes NewFileName OriginalFileName OriginalShortFileName
  OriginalVolumePath ProcessName RegistryHives/String RestorePointDescription RestorePointFullPath RestorePointName
  RestorePointType
TaskItem l crontabCommand crontabDayOfMonth crontabDayOfWeek crontabDelay crontabEvent crontabHour
  crontabJobIdentifier crontabMinute crontabMonth crontabPath crontabPeriod
TaskItem m arguments DigitalSignature/CertificateChain DigitalSignature/CertificateIssuer
  DigitalSignature/CertificateSubject DigitalSignature/Description DigitalSignature/SignatureExists
  DigitalSignature/SignatureVerified disabled groupName reference triggers/trigger/delay triggers/trigger/details
  triggers/trigger/schedule triggers/trigger/type
TaskItem ml path userName
TaskItem w AccountLogonType AccountName AccountRunLevel ActionList/Action/ActionType ActionList/Action/COMClassId
  ActionList/Action/COMData ActionList/Action/DigitalSignature/CertificateIssuer
  ActionList/Action/DigitalSignature/CertificateSubject ActionList/Action/DigitalSignature/Description
  ActionList/Action/DigitalSignature/SignatureExists ActionList/Action/DigitalSignature/SignatureVerified
  ActionList/Action/EmailAttachments ActionList/Action/EmailBCC ActionList/Action/EmailBody ActionList/Action/EmailCC
  ActionList/Action/EmailFrom ActionList/Action/EmailReplyTo ActionList/Action/EmailServer
  ActionList/Action/EmailSubject ActionList/Action/EmailTo ActionList/Action/ExecArguments
  ActionList/Action/ExecProgramMd5sum ActionList/Action/ExecProgramPath ActionList/Action/ExecProgramSha1sum
  ActionList/Action/ExecProgramSha256sum ActionList/Action/ExecWorkingDirectory ActionList/Action/ShowMessageBody
  ActionList/Action/ShowMessageTitle ApplicationName CertificateIssuer CertificateSubject Comment CreationDate Creator
  ExitCode Flag MaxRunTime MostRecentRunTime NextRunTime Parameters Priority SignatureDescription SignatureExists
  SignatureVerified Status TriggerList/Trigger/TriggerBegin TriggerList/Trigger/TriggerDelay
  TriggerList/Trigger/TriggerEnabled TriggerList/Trigger/TriggerEnd TriggerList/Trigger/TriggerFrequency
  TriggerList/Trigger/TriggerMaxRunTime TriggerList/Trigger/TriggerSessionChangeType
  TriggerList/Trigger/TriggerSubscription TriggerList/Trigger/TriggerUsername TriggerList/Trigger/TriggerValueQueries
  VirtualPath WorkingDirectory WorkItemData
TaskItem wml md5sum Name sha1sum sha256sum
UrlHistoryItem w FirstVisitDate LastVisitDateLocal Thumbnail
UrlHistoryItem wm BrowserName BrowserVersion FirstBookmarkDate Hidden HostName IndexedContent LastVisitDate PageTitle
  Profile Typed URL Username VisitCount VisitFrom VisitType
UserItem m autologin shell userguid userid
UserItem w description disabled lockedout passwordrequired scriptpath SecurityID SecurityType userpasswordage
UserItem wm fullname grouplist/groupname homedirectory LastLogin Username
VolumeItem l DeviceID RemoteAddress RemoteFS
VolumeItem m Flags/Ejectable Flags/Logical Flags/RAID
VolumeItem ml Flags/ReadOnly Flags/Removable FreeSize MountPoint TotalSize VolumeID
VolumeItem w ActualAvailableAllocationUnits BytesPerSector CreationTime DriveLetter FileSystemFlags Name
  SectorsPerAllocationUnit SerialNumber TotalAllocationUnits Type
VolumeItem wml DevicePath FileSystemName IsMounted VolumeName
Yara - Yara
"""
"""A document, the platforms for which the list has the paths that follow (w: Windows, m: macOS, l: Linux, -: none is
named), and these paths; a line that is indented goes on with the one before."""
